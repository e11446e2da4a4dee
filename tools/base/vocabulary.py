"""The words and rough figures that made-up goods are put together from, all made up by hand."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity a kind can have: its wording, the range it comes in, and how much it matters."""

    nouns: tuple[str, ...]
    unit: str
    low: float
    high: float
    weight: float
    """Change of the log-price per unit of the log-value."""


@dataclass(frozen=True, slots=True)
class Family:
    """A family of kinds that draw on the same words."""

    measures: tuple[Measure, ...]
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]
    features: tuple[str, ...]
    """Things that an item has or has not."""
    share: float
    """Share of the kinds."""
    base_range: tuple[float, float]
    """Dollars."""


def _measures(table: str) -> tuple[Measure, ...]:
    """Rows of "noun|other noun, unit, low, high, weight"."""
    rows = [[cell.strip() for cell in line.split(",")] for line in table.strip().splitlines()]
    return tuple(
        Measure(tuple(nouns.split("|")), unit, float(low), float(high), float(weight))
        for nouns, unit, low, high, weight in rows
    )


def _words(listing: str) -> tuple[str, ...]:
    """Words between commas; an empty one is a word too."""
    return tuple(word.strip() for word in listing.split(","))


COMPUTING_MEASURES = _measures("""
    processor, MHz, 8, 500, 0.35
    hard disk|hard drive, MB, 20, 4000, 0.3
    RAM|memory, MB, 1, 128, 0.35
    screen|monitor, inch, 9, 30, 0.6
    hard disk|hard drive, GB, 1, 2000, 0.25
    RAM|memory, GB, 1, 64, 0.35
    processor, GHz, 1, 5, 0.4
    graphics memory, MB, 1, 64, 0.2
    modem, baud, 300, 9600, 0.2
    resolution, dpi, 100, 2400, 0.3
    battery, hours, 2, 20, 0.3
    print speed, pages a minute, 1, 60, 0.4
    cache, KB, 16, 1024, 0.15
    expansion slots, , 1, 8, 0.15
    weight, pounds, 2, 40, -0.2
""")
HOUSEHOLD_MEASURES = _measures("""
    width, inches, 8, 90, 0.4
    height, inches, 8, 90, 0.3
    length, feet, 2, 60, 0.5
    depth, cm, 10, 120, 0.2
    weight, kg, 1, 200, 0.25
    capacity, litres, 1, 600, 0.4
    drawers, , 1, 12, 0.2
    shelves, , 1, 12, 0.2
    pieces, , 2, 96, 0.5
    seats, , 1, 9, 0.5
    warranty, months, 3, 120, 0.2
    motor, watts, 50, 3000, 0.4
    noise, dB, 30, 90, -0.4
    thread count, , 100, 1200, 0.3
    screen|display, inch, 5, 80, 0.7
    programs, , 2, 24, 0.15
""")
OUTDOOR_MEASURES = _measures("""
    range, miles, 5, 400, 0.4
    engine, horsepower, 2, 300, 0.5
    engine, cc, 50, 2000, 0.5
    mileage, miles, 500, 9900, -0.25
    age, years, 1, 40, -0.4
    tank, litres, 1, 80, 0.2
    top speed, mph, 10, 180, 0.5
    gears, , 1, 30, 0.25
    frame, cm, 40, 65, 0.2
    load, kg, 20, 900, 0.3
    zoom, mm, 18, 600, 0.35
    sensor, megapixels, 1, 60, 0.4
    strings, , 4, 12, 0.2
    keys, , 25, 88, 0.6
    power, watts, 10, 2000, 0.4
    volume, litres, 10, 120, 0.3
    purity, carats, 8, 24, 0.7
    beds, , 1, 8, 0.4
""")

FAMILIES = (
    Family(
        measures=COMPUTING_MEASURES,
        adjectives=_words("""
            office, home, portable, family, student, business, tower, compact, server, graphics, personal,
            desktop, ,
        """),
        nouns=_words("""
            computer, notebook, workstation, word processor, terminal, laptop, PC, machine, console,
            data logger
        """),
        features=_words("""
            CD-ROM drive, multimedia kit, sound card, modem, floppy drive, mouse, keyboard, printer,
            network card, tape drive, joystick, speakers, carrying case, software bundle, scanner
        """),
        share=0.5,
        base_range=(600, 4000),
    ),
    Family(
        measures=HOUSEHOLD_MEASURES,
        adjectives=_words("""
            oak, walnut, steel, folding, kitchen, garden, antique, wall, corner, electric
        """),
        nouns=_words("""
            bookcase, wardrobe, table, sofa, washing machine, fridge, television, vacuum cleaner, mixer,
            dinner set, cabinet, heater, fan, lamp, sewing machine, oven, carpet, mirror
        """),
        features=_words("""
            remote control, timer, thermostat, glass doors, lock, wheels, light, delivery, gift box, cover,
            water filter, child lock, spare parts, assembly kit, cushions
        """),
        share=0.25,
        base_range=(40, 4000),
    ),
    Family(
        measures=OUTDOOR_MEASURES,
        adjectives=_words("""
            racing, touring, children's, classic, light, mountain, electric, vintage, travel, studio
        """),
        nouns=_words("""
            bicycle, motorcycle, scooter, canoe, tent, camera, guitar, piano, generator, mower, trailer,
            drone, watch, telescope, backpack, caravan, amplifier, boat
        """),
        features=_words("""
            helmet, carrying case, tripod, spare wheel, rain cover, strap, stand, charger, basket,
            certificate, tool kit, GPS receiver, radio, awning, second battery
        """),
        share=0.25,
        base_range=(40, 4000),
    ),
)

GRADES: tuple[tuple[tuple[str, float], ...], ...] = (
    (("premium brand", 0.15), ("lesser brand", -0.15)),
    (("new", 0.1), ("used", -0.3), ("refurbished", -0.15)),
    (("mint condition", 0.2), ("good condition", 0.0), ("fair condition", -0.25)),
    (("black", 0.0), ("white", 0.0), ("red", 0.0), ("grey", 0.0)),
    (("hand made", 0.2), ("factory made", -0.1)),
    (("sold by a dealer", 0.08), ("sold by its owner", -0.08)),
)
