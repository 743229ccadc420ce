"""Who may do what: one pure decision, and the Permit that only this room can make."""
