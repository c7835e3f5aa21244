"""What an evaluation leaves behind, what has been published, and reading both back."""
