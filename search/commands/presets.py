"""tcpa presets."""


def command() -> None:
    """List the spaces and suites that are shipped."""
    from spaces.load import preset_names, preset_purpose
    from spaces.read_suite import suite_names, suite_purpose

    purposes = {name: preset_purpose(name) for name in preset_names()}
    purposes |= {name: f"suite of tcpa bench: {suite_purpose(name)}" for name in suite_names()}
    width = max(map(len, purposes))
    for name, purpose in purposes.items():
        print(f"{name:<{width}}  {purpose}")
