"""Search by words: what a query's words say of clips, and how that joins what pictures say."""
