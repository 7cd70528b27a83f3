"""Networks and tables in the forms that other tools read."""
