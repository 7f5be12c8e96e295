"""From a run's records to one page: `load` reads, `sections` say, `tables` and `plots` draw, `page` joins."""
