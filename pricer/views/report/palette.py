"""The colours of a report, each once for light and once for dark."""

# Charts are drawn in the light ones; in dark mode the page puts the dark one in the place of each.
_PAIRS = {
    "surface": ("#ffffff", "#171d26"),
    "text": ("#1b2430", "#e4e9f0"),
    "muted": ("#647084", "#98a4b5"),
    "grid": ("#e9ecf1", "#2a3340"),
    "line": ("#c9d0da", "#455163"),
    "blue": ("#2867d6", "#6ea8ff"),
    "purple": ("#8145d6", "#b995ff"),
    "teal": ("#0b8a8f", "#3fc6c9"),
    "amber": ("#b66a00", "#f0ac4e"),
    "pink": ("#c5327d", "#ff86bd"),
    "olive": ("#66791c", "#b4cb5c"),
    "green": ("#23935a", "#45c586"),
    "orange": ("#e08712", "#f5a742"),
    "red": ("#d13c43", "#f47074"),
}

SURFACE, TEXT, MUTED, GRID, LINE, BLUE, PURPLE, TEAL, AMBER, PINK, OLIVE, GREEN, ORANGE, RED = (
    light for light, _ in _PAIRS.values()
)

# Of the runs that are laid over each other, in this order, and again from the beginning.
SERIES = (BLUE, PURPLE, TEAL, AMBER, PINK, OLIVE)

DARK = dict(_PAIRS.values())
