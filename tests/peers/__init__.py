"""Agreement with independent code: other libraries' forward passes with copied weights, a file per user behavior model.

``make test-peers`` runs these in an environment of their own. Where a peer is right, ours must give the same numbers;
where it is not, a test shows the difference and says why. ``weights.py`` copies what every model shares.

What the peers have (benchmarks/peers/requirements.txt): DIN in all four; DIEN in all four (FuxiCTR
``model_zoo/LongCTR/DIEN``, DeepCTR-Torch ``models/dien.py``, RecBole ``sequential_recommender/dien.py``, Torch-RecHub
``models/ranking/dien.py``); SIM and TWIN in FuxiCTR's ``model_zoo/LongCTR`` alone; BST in Torch-RecHub alone.
"""
