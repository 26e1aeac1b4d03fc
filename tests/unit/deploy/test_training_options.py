"""A config as the command line says it."""

import pytest
import typer

from deploy.cli.training_options import read_changes
from shared.training.recipes import RECIPES, REFERENCE, change_config


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_alone_is_that_recipe(recipe: str) -> None:
    assert read_changes(recipe, []) == {}


def test_settings_change_single_keys_and_options_have_the_last_word() -> None:
    settings = [
        "epochs=3",
        "ema_decay=null",
        "optimizer=adamw",
        "clip_norm = 1.5",
        "milestones=[1, 2]",
        "augmentation.gamma=[0.8,1.2]",
        "initial_weights=object:" + "a" * 64,
        "scale_learning_rate=false",
    ]
    changes = read_changes("reference", settings, epochs=5, batch_size=None)
    assert changes["augmentation"] == {"gamma": [0.8, 1.2]}, "what is not named is left to the server"
    config = change_config(REFERENCE, changes)
    assert (config.epochs, config.ema_decay, config.optimizer, config.clip_norm) == (5, None, "adamw", 1.5)
    assert (config.milestones, config.augmentation.gamma) == ((1, 2), (0.8, 1.2))
    assert (config.initial_weights, config.scale_learning_rate) == ("object:" + "a" * 64, False)
    changed = {"epochs", "ema_decay", "optimizer", "clip_norm", "milestones", "augmentation"}
    changed |= {"initial_weights", "scale_learning_rate"}
    assert config.model_dump(exclude=changed) == REFERENCE.model_dump(exclude=changed)


@pytest.mark.parametrize(
    ("recipe", "setting", "said"),
    [
        ("best", "epochs=1", "no recipe 'best'; there are default, reference"),
        ("default", "epochs", "KEY=VALUE"),
        ("default", "epoch=1", "Did you mean epochs"),
        ("default", "augmentation.gama=[1,1]", "Did you mean augmentation.gamma"),
        ("default", "seed.x=1", "no such key"),
        ("default", "nowhere.x=1", "no such key"),
        ("default", "epochs=0", "epochs: Input should be greater than or equal to 1"),
        ("default", "epochs=many", "epochs: Input should be a valid integer"),
        ("default", "augmentation.gamma=[1.2,0.8]", "augmentation: .*the smaller first"),
        ("default", "warmup_epochs=99", "the warm-up is longer than the training"),
        ("default", "anchor_sizes_px=[[32],[64]]", "anchor_sizes_px has 2 levels, but fasterrcnn_resnet50_fpn has 5"),
        ("default", "anchor_sizes_px=[[8],[16],[32],[64],[]]", "the same number of sizes"),
        ("default", "anchor_sizes_px=[[8],[16],[32],[64],[-1]]", "anchor_sizes_px must be positive"),
        ("default", "anchor_aspect_ratios=[0,1]", "anchor_aspect_ratios must be positive"),
        ("default", "initial_weights=best.pth", "initial_weights: String should match"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(recipe: str, setting: str, said: str) -> None:
    with pytest.raises(typer.BadParameter, match=said) as refused:
        read_changes(recipe, [setting])
    assert "\n" not in refused.value.message
