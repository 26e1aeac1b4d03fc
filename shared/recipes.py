"""Training recipes by name: whole configs that `--recipe` starts from and single options change."""

from shared.training import TrainingConfig

#: What torchvision's detection reference does on a small set (references/detection, scaled to batch 4).
REFERENCE = TrainingConfig(
    architecture="fasterrcnn_mobilenet_v2_fpn",
    canvas_px=384,
    epochs=10,
    batch_size=4,
    optimizer="sgd",
    learning_rate=0.005,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="multistep",
    milestones=(3, 6, 9),
    gamma=0.1,
    warmup_epochs=1,
    clip_norm=None,
    ema_decay=None,
)

RECIPES = {"default": TrainingConfig(), "reference": REFERENCE}
