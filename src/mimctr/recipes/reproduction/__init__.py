"""The paper's whole evaluation as one recipe: what is asked for is planned, made, and written as tables."""
