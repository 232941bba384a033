"""Where a master key lives; each module is one `KeyStore`."""
