"""The services of a tenant, each behind the ports of `source`, in both directions."""
