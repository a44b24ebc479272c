"""The sentences of a verdict, by the kind of study."""
