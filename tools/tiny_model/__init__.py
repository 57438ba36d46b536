"""Makes the small model that quantloom ships: text, vocabulary, training, export."""
