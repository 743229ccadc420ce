"""Who is asking: from credentials in headers to a Principal. Pure; never logs a credential."""
