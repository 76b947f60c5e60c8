"""Invoices: made from a seed, and read back from XML.

Every document is an EN 16931 invoice in CII syntax, checked against the schema of that profile when it is made.
Amounts are decimals from end to end. `read` does not believe a document's totals: it computes them again
from the lines, allowances and VAT breakdown, as an accounting department's first check would, and refuses
a document whose figures do not agree. So a damaged or mixed-up body cannot pass for a posting.
"""

import datetime
import random
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from drafthorse.models.accounting import (
    ApplicableTradeTax,
    CategoryTradeTax,
    TradeAllowanceCharge,
)
from drafthorse.models.document import Document
from drafthorse.models.party import TaxRegistration
from drafthorse.models.payment import PaymentMeans, PaymentTerms
from drafthorse.models.tradelines import LineItem
from lxml import etree

NAMESPACES = {
    "rsm": "urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100",
    "ram": "urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100",
}
GUIDELINE = "urn:cen.eu:en16931:2017"
CENT = Decimal("0.01")

# VAT category and rate in percent (EN 16931, BT-151 and BT-152; codes of UNTDID 5305).
STANDARD, REDUCED, ZERO = ("S", Decimal(19)), ("S", Decimal(7)), ("Z", Decimal(0))

# Article, unit (UN/ECE Recommendation 20), VAT, lowest and highest net price in cents.
ARTICLES = [
    ("Schreibtisch, höhenverstellbar", "H87", STANDARD, 24_900, 89_900),
    ("Bürodrehstuhl", "H87", STANDARD, 12_900, 49_900),
    ("Kopierpapier A4 80 g/m²", "RM", STANDARD, 389, 799),
    ("Beratung vor Ort", "HUR", STANDARD, 8_500, 14_500),
    ("Fachbuch »Grundzüge der Buchhaltung«", "H87", REDUCED, 1_990, 5_990),
    ("Kaffee, geröstet & gemahlen", "KGM", REDUCED, 1_149, 2_499),
    ("Zeitschriftenabonnement", "MON", REDUCED, 890, 1_690),
    ("Photovoltaikmodul 430 Wp", "H87", ZERO, 6_900, 11_900),
    ("Strom, 3. Quartal", "KWH", STANDARD, 21, 39),
]

SELLERS = [
    ("Lehmann Bürobedarf GmbH", "Lange Straße 12", "04103", "Leipzig", "DE999000017"),
    ("Østergaard & Søn ApS", "Nørregade 4", "24937", "Flensburg", "DE999000025"),
    ("Müller Elektro e. K.", "Am Markt 3", "99084", "Erfurt", "DE999000033"),
]
BUYERS = [
    ("Stadtwerke Altenfeld", "Rathausplatz 1", "98701", "Altenfeld"),
    ("Kindergarten Sonnenschein e. V.", "Wiesenweg 7", "06108", "Halle (Saale)"),
    ("Bäckerei Özdemir", "Hauptstraße 88", "44135", "Dortmund"),
    ("Praxis Dr. Nguyễn", "Bahnhofstraße 2", "79098", "Freiburg im Breisgau"),
]


def rounded(amount):
    """To whole cents, halves away from zero: the rounding of EN 16931's examples."""
    return amount.quantize(CENT, rounding=ROUND_HALF_UP)


@dataclass(frozen=True)
class Amounts:
    """Of one invoice, or summed over many, in EUR."""

    net: Decimal = Decimal("0.00")
    vat: Decimal = Decimal("0.00")
    gross: Decimal = Decimal("0.00")

    def __add__(self, other):
        return Amounts(self.net + other.net, self.vat + other.vat, self.gross + other.gross)

    def __str__(self):
        return f"net {self.net} VAT {self.vat} gross {self.gross}"

    def to_json(self):
        # As strings: a JSON number is a binary float to most readers.
        return {"net": str(self.net), "vat": str(self.vat), "gross": str(self.gross)}

    @staticmethod
    def from_json(record):
        return Amounts(Decimal(record["net"]), Decimal(record["vat"]), Decimal(record["gross"]))


@dataclass(frozen=True)
class Invoice:
    """One document as it is published."""

    number: str
    xml: bytes
    amounts: Amounts


class Refused(Exception):
    """A document that is no invoice, or whose figures contradict each other."""


def make(seed, index):
    """The invoice at `index` of the sequence that `seed` names: the same bytes in every run."""
    chance = random.Random(f"{seed}/{index}")
    number = f"RE-2026-{index:06d}"
    seller = SELLERS[index % len(SELLERS)]
    buyer = chance.choice(BUYERS)
    issued = datetime.date(2026, 1, 2) + datetime.timedelta(days=index % 300)

    document = Document()
    document.context.guideline_parameter.id = GUIDELINE
    document.header.id = number
    document.header.type_code = "380"
    document.header.issue_date_time = issued
    agreement = document.trade.agreement
    agreement.buyer_reference = f"04011000-{chance.randrange(10_000):04d}-{index % 97:02d}"
    for party, (name, street, postcode, city) in ((agreement.seller, seller[:4]), (agreement.buyer, buyer)):
        party.name = name
        party.address.postcode = postcode
        party.address.line_one = street
        party.address.city_name = city
        party.address.country_id = "DE"
    agreement.seller.tax_registrations.add(TaxRegistration(id=("VA", seller[4])))
    document.trade.delivery.event.occurrence = issued - datetime.timedelta(days=chance.randrange(1, 20))

    basis = {}
    line_total = Decimal("0.00")
    for position in range(1, chance.choice((1, 2, 2, 3, 3, 4, 5, 8, 25)) + 1):
        article, unit, vat, lowest, highest = chance.choice(ARTICLES)
        price = Decimal(chance.randint(lowest, highest)) / 100
        # Hours and kilograms are not whole: the product has more than two places and must be rounded.
        fractional = unit in ("HUR", "KGM", "KWH")
        quantity = Decimal(chance.randint(1, 99_999)) / 1000 if fractional else Decimal(chance.randint(1, 40))
        amount = rounded(price * quantity)
        document.trade.items.add(line(position, article, unit, vat, price, quantity, amount))
        basis[vat] = basis.get(vat, Decimal("0.00")) + amount
        line_total += amount

    settlement = document.trade.settlement
    settlement.payment_reference = number
    settlement.currency_code = "EUR"
    means = PaymentMeans(type_code="58")
    means.payee_account.iban = "DE02120300000000202051"
    settlement.payment_means.add(means)
    allowance_total = Decimal("0.00")
    if index % 4 == 0:
        for vat in sorted(basis):
            discount = rounded(basis[vat] * Decimal("0.03"))
            if discount > 0:
                settlement.allowance_charge.add(allowance(vat, discount))
                basis[vat] -= discount
                allowance_total += discount
    vat_total = Decimal("0.00")
    for vat in sorted(basis):
        category, rate = vat
        tax = ApplicableTradeTax()
        tax.calculated_amount = rounded(basis[vat] * rate / 100)
        tax.type_code = "VAT"
        tax.basis_amount = basis[vat]
        tax.category_code = category
        tax.rate_applicable_percent = rate
        settlement.trade_tax.add(tax)
        vat_total += rounded(basis[vat] * rate / 100)
    settlement.terms.add(PaymentTerms(due=issued + datetime.timedelta(days=30)))

    amounts = Amounts(line_total - allowance_total, vat_total, line_total - allowance_total + vat_total)
    total = settlement.monetary_summation
    total.line_total = line_total
    total.charge_total = Decimal("0.00")
    total.allowance_total = allowance_total
    total.tax_basis_total = amounts.net
    total.tax_total = (amounts.vat, "EUR")
    total.grand_total = amounts.gross
    total.due_amount = amounts.gross
    return Invoice(number, document.serialize(schema="FACTUR-X_EN16931"), amounts)


def line(position, article, unit, vat, price, quantity, amount):
    category, rate = vat
    item = LineItem()
    item.document.line_id = str(position)
    item.product.name = article
    item.agreement.net.amount = price
    item.delivery.billed_quantity = (quantity, unit)
    item.settlement.trade_tax.type_code = "VAT"
    item.settlement.trade_tax.category_code = category
    item.settlement.trade_tax.rate_applicable_percent = rate
    item.settlement.monetary_summation.total_amount = amount
    return item


def allowance(vat, amount):
    category, rate = vat
    entry = TradeAllowanceCharge()
    entry.indicator = False
    entry.actual_amount = amount
    entry.reason = "Rahmenvertrag"
    tax = CategoryTradeTax()
    tax.type_code = "VAT"
    tax.category_code = category
    tax.rate_applicable_percent = rate
    entry.trade_tax.add(tax)
    return entry


def read(xml):
    """Number and amounts of a document, computed from its parts. Raises `Refused`."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    try:
        root = etree.fromstring(xml, parser)
    except etree.XMLSyntaxError as error:
        raise Refused(f"not XML: {error}") from error
    number = text(root, "rsm:ExchangedDocument/ram:ID")
    if text(root, "rsm:ExchangedDocumentContext/ram:GuidelineSpecifiedDocumentContextParameter/ram:ID") != GUIDELINE:
        raise Refused(f"{number}: not an EN 16931 invoice")

    basis = {}
    for item in every(root, "rsm:SupplyChainTradeTransaction/ram:IncludedSupplyChainTradeLineItem"):
        price = amount(item, "ram:SpecifiedLineTradeAgreement/ram:NetPriceProductTradePrice/ram:ChargeAmount")
        quantity = amount(item, "ram:SpecifiedLineTradeDelivery/ram:BilledQuantity")
        settlement = only(item, "ram:SpecifiedLineTradeSettlement")
        stated = amount(settlement, "ram:SpecifiedTradeSettlementLineMonetarySummation/ram:LineTotalAmount")
        agree(number, "line", stated, rounded(price * quantity))
        vat = category(only(settlement, "ram:ApplicableTradeTax"))
        basis[vat] = basis.get(vat, Decimal(0)) + stated
    line_total = sum(basis.values(), Decimal(0))

    settlement = only(root, "rsm:SupplyChainTradeTransaction/ram:ApplicableHeaderTradeSettlement")
    for entry in every(settlement, "ram:SpecifiedTradeAllowanceCharge"):
        basis[category(only(entry, "ram:CategoryTradeTax"))] -= amount(entry, "ram:ActualAmount")
    net = sum(basis.values(), Decimal(0))
    vat_total = Decimal(0)
    for tax in every(settlement, "ram:ApplicableTradeTax"):
        vat = category(tax)
        agree(number, f"VAT basis {vat[1]} %", amount(tax, "ram:BasisAmount"), basis.pop(vat, None))
        stated = amount(tax, "ram:CalculatedAmount")
        agree(number, f"VAT {vat[1]} %", stated, rounded(amount(tax, "ram:BasisAmount") * vat[1] / 100))
        vat_total += stated
    if basis:
        raise Refused(f"{number}: no VAT breakdown for {sorted(basis)}")

    total = only(settlement, "ram:SpecifiedTradeSettlementHeaderMonetarySummation")
    agree(number, "sum of lines", amount(total, "ram:LineTotalAmount"), line_total)
    agree(number, "net", amount(total, "ram:TaxBasisTotalAmount"), net)
    agree(number, "VAT", amount(total, "ram:TaxTotalAmount"), vat_total)
    agree(number, "gross", amount(total, "ram:GrandTotalAmount"), net + vat_total)
    return number, Amounts(net, vat_total, net + vat_total)


def every(element, path):
    return element.findall(path, NAMESPACES)


def only(element, path):
    found = every(element, path)
    if len(found) != 1:
        raise Refused(f"{len(found)} times {path}")
    return found[0]


def text(element, path):
    return only(element, path).text or ""


def amount(element, path):
    try:
        return Decimal(text(element, path))
    except ArithmeticError as error:
        raise Refused(f"{path} is no number") from error


def category(element):
    return text(element, "ram:CategoryCode"), amount(element, "ram:RateApplicablePercent")


def agree(number, what, stated, computed):
    if stated != computed:
        raise Refused(f"{number}: {what} is stated as {stated} and comes to {computed}")
