"""The words of column names in several languages, by what the column holds."""

import re
import unicodedata

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+|[0-9]+")


def _plain(text: str) -> str:
    """The text without accents, as it is compared."""
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return unicodedata.normalize("NFC", "".join(letters))  # NFKD takes Korean syllables apart


def _words(text: str) -> frozenset[str]:
    return frozenset(_plain(text).split())


PRICE = _words(
    """
    price prices prix preis preise precio precios prezzo prezzi preco precos prijs pris cena ceny hinta fiyat ar
    pret цена стоимость 价格 價格 售价 単価 価格 値段 가격 ราคา harga gia
    """
)
# Amounts that are a price if nothing else is.
AMOUNT = _words(
    """
    cost costs amount wage wages salary salaries gehalt lohn salario salaire stipendio rent miete loyer earnings
    income revenue msrp rrp uvp kosten betrag importe montant valor value charge fee premium
    """
)
# Ends of compound words: verkaufspreis, stundenlohn.
PRICE_ENDS = ("preis", "price", "prix", "preco", "prijs")
AMOUNT_ENDS = ("wage", "salary", "cost", "lohn", "gehalt", "kosten", "miete")
# Of several prices, the one to predict.
PREFERRED = _words(
    """
    sale sold selling final current actual verkauf vente venta
    """
)
# Of several prices, or made from the price: not the one to predict.
OTHER_PRICE = _words(
    """
    list listed orig original old was regular msrp rrp uvp before previous next shipping versand delivery tax vat
    per pro min max low high avg average mean median log ln discount rebate change difference diff pct percent ratio
    index
    """
)
DESCRIPTION = _words(
    """
    description descriptions desc beschreibung descripcion descrizione descricao descriptif omschrijving beskrivning
    beskrivelse opis popis kuvaus aciklama описание 描述 说明 説明 설명 summary text texte texto testo content
    body details features
    """
)
TITLE = _words(
    """
    title titel titre titulo titolo name names nom nombre nome naam nazwa headline bezeichnung product produkt
    produit producto prodotto artikel article item model название 名称 商品名 标题 タイトル 제목
    """
)
TITLE_ENDS = ("name", "titel", "title", "bezeichnung")
CATEGORY = _words(
    """
    category categories kategorie categorie categoria kategori kategoria department genre
    категория 类别 分类 カテゴリ 분류
    """
)
# A category if there is no better one.
MAKER = _words(
    """
    brand make maker manufacturer marke marque marca hersteller neighborhood neighbourhood region
    """
)
ID = _words(
    """
    id ids uid uuid guid sku asin isbn ean upc gtin vin rowname rownames row index idx unnamed url link href image
    images img photo hash key
    """
)
SPLIT = _words(
    """
    split splits set fold subset partition
    """
)


def name_words(name: str) -> list[str]:
    """The words of a column name in small letters without accents: `SalePrice_EUR` has sale, price and eur."""
    return [word.casefold() for word in _WORD.findall(_plain(name))]
