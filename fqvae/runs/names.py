"""The files in a run's folder."""

CHECKPOINT = "last.ckpt"
CONFIG = "config.yaml"
CURVES = "metrics.csv"  # losses while it trained
PICTURE = "reconstructions.png"
EVALUATION = "metrics.json"
REPORT = "report.html"
PICTURES = "pictures"  # a folder
