"""Films of an agent playing, with what it thought."""
