"""The `vidseek` command. Rooms are imported when a command needs them."""
