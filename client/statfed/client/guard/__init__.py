"""What guards a holder's data: policy, ledger, disclosure control, memory of releases."""
