"""The paper's evaluation on anyone's data: its tables and figures, ours beside the paper's, and what holds of it."""
