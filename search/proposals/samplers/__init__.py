"""The samplers that a space can name, one file each."""
