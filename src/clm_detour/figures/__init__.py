"""Tables, dot plots and charts: of data cards, evaluations, analyses and the report."""
