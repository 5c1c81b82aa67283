"""The paper's evaluation on anyone's data: tables and figures with the paper's numbers beside ours, and what follows."""
