"""From records to Parquet tables, statistics, plots and reports."""
