"""How one step runs: tried again when that can help, shown while it goes on."""
