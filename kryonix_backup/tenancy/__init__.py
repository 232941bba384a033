"""
The tenants that this machine knows.

A *registered* tenant has one file of settings under ``$KRYONIX_HOME/tenants``. The file is a
convenience: it holds nothing that the tenant's newest snapshot does not hold too.
"""
