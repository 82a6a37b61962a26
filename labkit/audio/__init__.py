"""Numbers and bytes: samples, formats, and audio that is not what it is declared to be."""
