"""One run of a study, by its only driver."""
