"""tcpa presets."""


def command() -> None:
    """List the spaces and suites that are shipped."""
    from spaces.shipped import PRESETS, SUITES

    purposes = {name: PRESETS.purpose(name) for name in PRESETS.names()}
    purposes |= {name: f"suite of tcpa bench: {SUITES.purpose(name)}" for name in SUITES.names()}
    width = max(map(len, purposes))
    for name, purpose in purposes.items():
        print(f"{name:<{width}}  {purpose}")
