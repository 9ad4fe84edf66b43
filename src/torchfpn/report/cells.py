"""What stands in the cells of tables on a terminal."""

from torchfpn.report.numbers import Number


def literal(name: str) -> str:
    """A name in which rich finds no markup."""
    return name.replace("[", r"\[")


def percents(value: Number) -> str:
    """A share in percent with two digits; "-" where there is nothing to measure."""
    return "-" if value is None else f"{100 * value:.2f}"
