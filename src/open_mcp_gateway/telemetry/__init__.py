"""What operators see: logs. Never message content below trace level, never a credential."""
