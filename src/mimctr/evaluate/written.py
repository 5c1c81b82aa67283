"""How numbers are written for people: one place, so that tables, plots and sentences agree."""

MINUS = "\N{MINUS SIGN}"


def signed(value: float, digits: int = 4) -> str:
    """Return a number with its sign; the minus is a real minus."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", MINUS)


def plus_minus(mean: float, sd: float | None, digits: int = 4) -> str:
    """Return ``mean ± sd``; the mean alone for one seed. The minus is a real minus."""
    text = f"{mean:.{digits}f}" if sd is None else f"{mean:.{digits}f} ± {sd:.{digits}f}"
    return text.replace("-", MINUS)


def interval(low: float | None, high: float | None, digits: int = 4) -> str:
    """Return ``low to high``; empty where there is no interval."""
    return "" if low is None or high is None else f"{signed(low, digits)} to {signed(high, digits)}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share in percent; empty where there is none. The minus is a real minus."""
    return "" if share is None else f"{100 * share:.{digits}f} %".replace("-", MINUS)


def probability(p: float | None, *, name: str = "p = ") -> str:
    """Return a p-value as it is commonly written; ``name`` opens it."""
    if p is None:
        return ""
    return f"{name}{p:.3f}" if p >= 0.001 else f"{name.replace('= ', '')}< 0.001"


def duration(seconds: float) -> str:
    """Return seconds in the unit that reads best."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def memory(num_bytes: float) -> str:
    """Return bytes in MiB or GiB."""
    mebibytes = num_bytes / 2**20
    return f"{mebibytes:,.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:,.1f} GiB"
