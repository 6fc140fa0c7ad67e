"""The agent of one host: punt -> resolve -> offer -> write -> re-inject; restart; expiry."""
