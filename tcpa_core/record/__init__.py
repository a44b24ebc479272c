"""What trials report and studies record: values, and the events of a journal."""
