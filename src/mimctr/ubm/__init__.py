"""User behavior models, content interest, and the CTR model in two halves (MIM Section 3.4)."""
