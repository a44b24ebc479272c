"""tcpa presets."""


def command() -> None:
    """List the spaces that are shipped."""
    from spaces.load import preset_names, preset_purpose

    width = max(map(len, preset_names()))
    for name in preset_names():
        print(f"{name:<{width}}  {preset_purpose(name)}")
