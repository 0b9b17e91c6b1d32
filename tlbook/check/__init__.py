"""The checks of the exercises, one module a chapter: `check.<chapter>_<n>(answer)`."""

from tlbook.check.adapters import adapters_1, adapters_2, adapters_3, adapters_4
from tlbook.check.ants_and_bees import (
    ants_and_bees_1,
    ants_and_bees_2,
    ants_and_bees_3,
    ants_and_bees_4,
)
from tlbook.check.better_at_the_end import (
    better_at_the_end_1,
    better_at_the_end_2,
    better_at_the_end_3,
    better_at_the_end_4,
)
from tlbook.check.caching import caching_1, caching_2, caching_3, caching_4
from tlbook.check.cats_and_dogs import (
    cats_and_dogs_1,
    cats_and_dogs_2,
    cats_and_dogs_3,
    cats_and_dogs_4,
    cats_and_dogs_5,
)
from tlbook.check.cluster import cluster_1, cluster_2, cluster_3, cluster_4
from tlbook.check.cross_validation import (
    cross_validation_1,
    cross_validation_2,
    cross_validation_3,
    cross_validation_4,
)
from tlbook.check.delete_change_add import (
    delete_change_add_1,
    delete_change_add_2,
    delete_change_add_3,
    delete_change_add_4,
)
from tlbook.check.differences import differences_1, differences_2, differences_3, differences_4
from tlbook.check.distillation import (
    distillation_1,
    distillation_2,
    distillation_3,
    distillation_4,
)
from tlbook.check.downsamplings import (
    downsamplings_1,
    downsamplings_2,
    downsamplings_3,
    downsamplings_4,
    downsamplings_5,
)
from tlbook.check.fast import fast_1, fast_2, fast_3, fast_4
from tlbook.check.feature_extraction import (
    feature_extraction_1,
    feature_extraction_2,
    feature_extraction_3,
    feature_extraction_4,
)
from tlbook.check.foreign_checkpoints import (
    foreign_checkpoints_1,
    foreign_checkpoints_2,
    foreign_checkpoints_3,
    foreign_checkpoints_4,
    foreign_checkpoints_5,
)
from tlbook.check.heads_and_stems import (
    heads_and_stems_1,
    heads_and_stems_2,
    heads_and_stems_3,
    heads_and_stems_4,
)
from tlbook.check.hybrid import hybrid_1, hybrid_2, hybrid_3, hybrid_4
from tlbook.check.image_folders import (
    image_folders_1,
    image_folders_2,
    image_folders_3,
    image_folders_4,
)
from tlbook.check.inside_a_run import (
    inside_a_run_1,
    inside_a_run_2,
    inside_a_run_3,
    inside_a_run_4,
    inside_a_run_5,
)
from tlbook.check.layer_by_hand import (
    layer_by_hand_1,
    layer_by_hand_2,
    layer_by_hand_3,
    layer_by_hand_4,
)
from tlbook.check.learning_curves import (
    learning_curves_1,
    learning_curves_2,
    learning_curves_3,
    learning_curves_4,
)
from tlbook.check.learning_rates import (
    learning_rates_1,
    learning_rates_2,
    learning_rates_3,
    learning_rates_4,
)
from tlbook.check.loop import loop_1, loop_2, loop_3, loop_4
from tlbook.check.losses import losses_1, losses_2, losses_3, losses_4, losses_5
from tlbook.check.model_zoo import model_zoo_1, model_zoo_2, model_zoo_3, model_zoo_4
from tlbook.check.modules import modules_1, modules_2, modules_3, modules_4
from tlbook.check.more_devices import (
    more_devices_1,
    more_devices_2,
    more_devices_3,
    more_devices_4,
)
from tlbook.check.networks import networks_1, networks_2, networks_3, networks_4
from tlbook.check.not_forgetting import (
    not_forgetting_1,
    not_forgetting_2,
    not_forgetting_3,
    not_forgetting_4,
)
from tlbook.check.numbers import numbers_1, numbers_2, numbers_3, numbers_4, numbers_5
from tlbook.check.optimizers import optimizers_1, optimizers_2, optimizers_3, optimizers_4
from tlbook.check.really_frozen import (
    really_frozen_1,
    really_frozen_2,
    really_frozen_3,
    really_frozen_4,
)
from tlbook.check.rules_of_thumb import (
    rules_of_thumb_1,
    rules_of_thumb_2,
    rules_of_thumb_3,
    rules_of_thumb_4,
)
from tlbook.check.saving import saving_1, saving_2, saving_3, saving_4
from tlbook.check.slim_nets import slim_nets_1, slim_nets_2, slim_nets_3, slim_nets_4
from tlbook.check.solar_cells import solar_cells_1, solar_cells_2, solar_cells_3, solar_cells_4
from tlbook.check.when_it_helps import (
    when_it_helps_1,
    when_it_helps_2,
    when_it_helps_3,
    when_it_helps_4,
)
