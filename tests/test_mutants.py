"""Tests that can fail: each mutant is one wrong line in a copy of the package, and a named test catches it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import mimctr

PACKAGE = Path(mimctr.__file__).parent
ROOT = Path(__file__).parent.parent
TESTS_FAILED = 1  # pytest's exit status; 2 to 5 would mean that it could not run them


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    right: str
    wrong: str
    test: str


MUTANTS = [
    Mutant(
        "a behavior of the same second leaks into the history",
        "data/histories.py",
        'side="left"',
        'side="right"',
        "tests/data/test_histories.py",
    ),
    Mutant(
        "users are sorted apart from the labels",
        "data/write.py",
        "array[:, position] = impressions.user",
        "array[:, position] = raw.impressions.user",
        "tests/data/test_dataset.py::test_every_row_keeps_its_user_label_fields_and_history",
    ),
    Mutant(
        "truncation keeps the oldest",
        "batch.py",
        "end[:, None] + offsets",
        "start[:, None] + kept[:, None] + offsets",
        "tests/data/test_dataset.py::test_truncation_keeps_the_newest_behaviors_at_the_end",
    ),
    Mutant(
        "padding reaches the output",
        "ubm/masking.py",
        "x.flatten(0, 1).index_fill(0, padding, 0.0).view(x.shape)",
        "x",
        "tests/ubm/test_contract.py",
    ),
    Mutant(
        "Dice takes its statistics over padding",
        "ubm/statistics.py",
        "if mask is None else mask.unsqueeze(1).to(rows.dtype)",
        "",
        "tests/ubm/test_din.py::test_dice_equals_batch_norm_on_the_real_rows",
    ),
    Mutant(
        "each process normalizes by its own rows",
        "ubm/statistics.py",
        "num_rows = total(real.sum())",
        "num_rows, sum_shares = real.sum(), lambda share: share",
        "tests/recipes/test_train_processes.py::test_two_processes_train_the_model_of_one",
    ),
    Mutant(
        "a process trains on the gradient of its own impressions",
        "recipes/ctr_fitting.py",
        "    distributed.sum_gradients(model.parameters())\n",
        "",
        "tests/recipes/test_train_processes.py::test_two_processes_train_the_model_of_one",
    ),
    Mutant(
        "a process knows only its own rows of a large table's gradient",
        "distributed.py",
        "                _sum_sparse_gradient(parameter)",
        "                pass",
        "tests/test_distributed.py::test_two_processes_exchange_what_one_has",
    ),
    Mutant(
        "lazy Adam penalizes rows that no batch names",
        "train/adam.py",
        "    rows, values = gradient.indices()[0], gradient.values()\n",
        "    rows = torch.arange(len(parameter))\n    values = gradient.to_dense()\n",
        "tests/train/test_adam.py::test_a_row_that_no_batch_names_stays_as_it_is",
    ),
    Mutant(
        "Dice takes the mean of a batch for a constant",
        "ubm/activations.py",
        "q - (of_mean + (rows - mean) * of_scale) * counted",
        "q - (rows - mean) * of_scale * counted",
        "tests/ubm/test_din.py::test_dice_has_the_gradient_of_batch_norm_on_the_real_rows",
    ),
    Mutant(
        "a cross layer multiplies by its own input",
        "ubm/cross.py",
        "crossed = x * layer(crossed)",
        "crossed = crossed * layer(crossed)",
        "tests/ubm/test_cross.py::test_cross_layers_are_the_papers_formula",
    ),
    Mutant(
        "a process clips the gradient of its own impressions",
        "recipes/ctr_fitting.py",
        "    share.backward()\n",
        "    share.backward()\n    if config.max_gradient_norm > 0:\n"
        "        clip_gradients(model.parameters(), config.max_gradient_norm)\n",
        "tests/recipes/test_train_processes.py::test_two_processes_train_the_model_of_one",
    ),
    Mutant(
        "the unknown item is hashed into the row of a known one",
        "ubm/embeddings.py",
        "torch.where(rows < FIRST_INDEX, rows,",
        "torch.where(rows < UNKNOWN, rows,",
        "tests/ubm/test_embeddings.py::TestHashing",
    ),
    Mutant(
        "items of one bucket count as of one category",
        "ubm/embeddings.py",
        "category = self.item_fields[:, 0]",
        'category = self._bucketed("item_category", self.item_fields[:, 0])',
        "tests/ubm/test_embeddings.py::TestHashing",
    ),
    Mutant(
        "the penalty counts entries where rows are shared",
        "ubm/embeddings.py",
        "named[name] = self._bucketed(name, rows[..., column])",
        "named[name] = rows[..., column]",
        "tests/ubm/test_embeddings.py::TestHashing",
    ),
    Mutant(
        "the gradient of a table in parts is summed twice",
        "distributed.py",
        "for parameter in parameters if not isinstance(parameter, OwnRows)",
        "for parameter in parameters",
        "tests/ubm/test_sharded.py::test_three_processes_with_a_part_each_are_one_with_the_whole",
    ),
    Mutant(
        "a part of a table starts a row early",
        "ubm/sharded.py",
        "first=self.own.start",
        "first=self.own.start - 1",
        "tests/ubm/test_sharded.py::test_three_processes_with_a_part_each_are_one_with_the_whole",
    ),
    Mutant(
        "the padding row of a table in parts moves",
        "ubm/sharded.py",
        "        rows = rows.masked_fill((asked == PADDING).unsqueeze(1), 0.0)\n",
        "",
        "tests/ubm/test_sharded.py::test_three_processes_with_a_part_each_are_one_with_the_whole",
    ),
    Mutant(
        "initial weights depend on whether a table is in parts",
        "ubm/sharded.py",
        "        _draw(num_rows, dim, std=1.0, own=self.own)",
        "        ",
        "tests/ubm/test_sharded.py::test_three_processes_with_a_part_each_are_one_with_the_whole",
    ),
    Mutant(
        "a table in parts is saved without the others' parts",
        "ubm/sharded.py",
        "state[name] = rows_in_main(parameter)",
        "state[name] = parameter.detach()",
        "tests/ubm/test_sharded.py::test_three_processes_with_a_part_each_are_one_with_the_whole",
    ),
    Mutant(
        "W3 gets no gradient from q - k",
        "ubm/activation_unit.py",
        "of_first - self.of_sum, ",
        "of_first, ",
        "tests/ubm/test_din.py::test_the_decomposition_has_the_plain_form_s_gradient",
    ),
    Mutant(
        "q - k has a wrong sign in the first layer of DIN's activation unit",
        "ubm/activation_unit.py",
        "torch.addcmul(w2 - w3, ",
        "torch.addcmul(w2 + w3, ",
        "tests/ubm/test_din.py::test_the_decomposed_first_layer_equals_the_plain_form",
    ),
    Mutant(
        "the search multiplies scores by the mask",
        "ubm/search.py",
        'scores.masked_fill(~mask, float("-inf"))',
        "(scores * mask)",
        "tests/ubm/test_sim.py::test_every_real_behavior_is_kept_before_any_padding",
    ),
    Mutant(
        "a missing vector is a cosine of 0 and is kept before negative ones",
        "ubm/search.py",
        "torch.where(relevance.known, relevance.cosine.float(), beyond_cosines)",
        "relevance.cosine.float()",
        "tests/ubm/test_sim.py::test_the_content_search_equals_a_loop",
    ),
    Mutant(
        "the content search keeps k - 1",
        "ubm/search.py",
        "return keep_highest(scores, mask, k)\n\n\ndef keep_in_turn",
        "return keep_highest(scores, mask, k - 1)\n\n\ndef keep_in_turn",
        "tests/ubm/test_sim.py::test_the_content_search_equals_a_loop",
    ),
    Mutant(
        "of behaviors without a vector the content search keeps the oldest",
        "ubm/search.py",
        "torch.arange(-length, 0, device=mask.device) - 1.0",
        "-1.0 - torch.arange(1, length + 1, device=mask.device)",
        "tests/ubm/test_sim.py::test_a_target_without_a_vector_keeps_the_newest_behaviors",
    ),
    Mutant(
        "the mix of attentions weighs IDs with the weight of content",
        "ubm/attention_mix.py",
        "of_ids, of_content, of_both = ",
        "of_content, of_ids, of_both = ",
        "tests/ubm/test_sim.py::test_the_mix_of_two_heads_by_hand",
    ),
    Mutant(
        "the exact search mixes in the cosines of the oldest behaviors",
        "ubm/search.py",
        "Relevance(*(part.gather(1, positions) for part in relevance))",
        "Relevance(*(part[:, :k] for part in relevance))",
        "tests/ubm/test_sim.py::test_the_mix_is_found_in_the_exact_search_over_the_kept",
    ),
    Mutant(
        "a user behavior model compares what takes a missing target's place",
        "ubm/content_module.py",
        "known = self.counted & self.has_content.unsqueeze(1)",
        "known = self.counted",
        "tests/ubm/test_content_interest.py::TestWhatAUserBehaviorModelSees",
    ),
    Mutant(
        "cosines that are known already count outside the scope",
        "ubm/content_interest.py",
        "known = None if relevance is None else relevance.masked_fill(~mask, 0.0)",
        "known = relevance",
        "tests/ubm/test_content_interest.py::test_cosines_that_are_known_already_count_where_the_mask_says",
    ),
    Mutant(
        "padding reaches Eq. (7)",
        "ubm/content_interest.py",
        "vectors = zero_padding(behaviors_content, mask)",
        "vectors = behaviors_content.clone()",
        "tests/ubm/test_contract.py",
    ),
    Mutant(
        "the learned vector of a target gets no gradient where vectors are fetched part by part",
        "ubm/content_interest.py",
        "learned is None or not target.requires_grad",
        "True",
        "tests/ubm/test_content_interest.py::test_fetched_part_by_part_is_as_fetched_at_once",
    ),
    Mutant(
        "the copies of a row are summed in the order of the batch",
        "ubm/lookup.py",
        "F.embedding_bag(order, copies",
        "F.embedding_bag(torch.arange(len(order)), copies",
        "tests/ubm/test_lookup.py",
    ),
    Mutant(
        "a missing vector stays in Eq. (7) and (8)",
        "ubm/content_module.py",
        "counted = in_scope & content.behaviors_known",
        "counted = in_scope",
        "tests/ubm/test_content_interest.py",
    ),
    Mutant(
        "DIEN counts padded steps in its auxiliary loss",
        "ubm/dien.py",
        "mask[:, :-1] & mask[:, 1:]",
        "torch.ones_like(mask[:, 1:])",
        "tests/ubm/test_dien.py::TestAuxiliaryLoss",
    ),
    Mutant(
        "a state of DIEN tells its own behavior from another item",
        "ubm/dien.py",
        "before = states[:, :-1]",
        "before = states[:, 1:]",
        "tests/ubm/test_dien.py::TestAuxiliaryLoss",
    ),
    Mutant(
        "the AUGRU's state moves although the attention is 0",
        "ubm/dien.py",
        "move = a * update",
        "move = 1 - (1 - a) * (1 - update)",
        "tests/ubm/test_dien.py::test_without_attention_the_paper_s_state_stands_still_and_the_authors_moves",
    ),
    Mutant(
        "DIEN drops the attention and is a plain GRU",
        "ubm/dien.py",
        "self.evolution(states, attention, mask)[:, -1]",
        "states[:, -1]",
        "tests/ubm/test_dien.py::test_the_last_state_equals_a_written_out_loop",
    ),
    Mutant(
        "a GRU runs through the padding",
        "ubm/dien.py",
        "move.masked_fill(~real, 0.0)",
        "move",
        "tests/ubm/test_dien.py::test_the_states_are_those_of_a_gru_that_starts_at_the_oldest_behavior",
    ),
    Mutant(
        "BST's positions are indices",
        "ubm/bst.py",
        "self.time(history.time_gaps[:, -self.length :])",
        "self.time(mask.long().flip(1).cumsum(1).flip(1))",
        "tests/ubm/test_bst.py::test_a_token_s_place_is_all_that_the_order_decides",
    ),
    Mutant(
        "BST's newest behavior slides with the padding",
        "ubm/bst.py",
        "(0, 0, self.length + 1 - tokens.shape[1], 0)",
        "(0, 0, 0, self.length + 1 - tokens.shape[1])",
        "tests/ubm/test_bst.py::test_the_newest_behavior_has_its_place_whatever_the_padding",
    ),
    Mutant(
        "BST's target is an interest of users without history",
        "ubm/bst.py",
        "counted = torch.cat([mask, mask.any(dim=1, keepdim=True)], dim=1)",
        "counted = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)",
        "tests/ubm/test_contract.py::TestUserBehaviorModel::test_no_history_means_no_interest",
    ),
    Mutant(
        "TWIN's search does not look at the cross features",
        "ubm/twin.py",
        "self.relevance(target, history, keys).detach()",
        "(self.relevance(target, history, keys) - self._cross_relevance(history)).detach()",
        "tests/ubm/test_twin.py::test_the_search_keeps_the_oracle_s_hundred_of_a_hundred",
    ),
    Mutant(
        "TWIN's search sums its heads",
        "ubm/twin.py",
        "self.relevance(target, history, keys).detach(),",
        "self.relevance(target, history, keys).detach().sum(1, keepdim=True),",
        "tests/ubm/test_twin.py::test_the_search_keeps_the_oracle_s_hundred_of_a_hundred",
    ),
    Mutant(
        "TWIN's keys have a bias that no softmax sees",
        "ubm/twin.py",
        "self.keys = nn.Linear(dim, num_heads * head_dim, bias=False)",
        "self.keys = nn.Linear(dim, num_heads * head_dim)",
        "tests/ubm/test_twin.py::test_every_weight_of_the_attention_is_seen",
    ),
    Mutant(
        "heads that agree keep fewer than k",
        "ubm/search.py",
        "return keep_highest(-first_named.float(), mask, k)",
        "return (first_named < k) & mask",
        "tests/ubm/test_twin.py::test_heads_that_agree_still_keep_k",
    ),
    Mutant(
        "the penalty of a batch's rows counts occurrences",
        "ubm/regularization.py",
        "tables[name], ordered[first])",
        "tables[name], ordered.flatten())",
        "tests/ubm/test_regularization.py",
    ),
    Mutant(
        "the penalty of a batch's rows forgets their counts",
        "ubm/regularization.py",
        "l2 / counts[name][named].unsqueeze(1) * weight",
        "l2 * weight",
        "tests/ubm/test_regularization.py",
    ),
    Mutant(
        "a row of the encoder tables forgets its settings",
        "recipes/encoder_tables.py",
        "recipe.csft.model_dump() | row.csft",
        "recipe.csft.model_dump()",
        "tests/recipes/test_encoder_tables.py::test_every_row_differs_from_mim_in_what_it_says_and_in_nothing_else",
    ),
    Mutant(
        "the encoder's fingerprint is ignored",
        "center/snapshot.py",
        "if manifest.fingerprint != encoder:",
        "if not encoder:",
        "tests/center/test_snapshot.py::test_another_encoders_snapshot_is_refused",
    ),
    Mutant(
        "the constant 1 is missing in tensor fusion",
        "encoders/fusion.py",
        "return F.pad(view, (0, 1), value=1.0)",
        "return F.pad(view, (0, 1), value=0.0)",
        "tests/encoders/test_fusion.py",
    ),
    Mutant(
        "a second row of the positive's item stays a negative",
        "csft/loss.py",
        "excluded = keys[self.positives, None] == keys[None, start:stop]  # (N, block)",
        "excluded = torch.zeros(self.num_queries, stop - start, dtype=torch.bool, device=keys.device)",
        "tests/csft/test_interest_loss.py",
    ),
    Mutant(
        "the streamed loss forgets what it has summed when a larger logit comes",
        "csft/loss.py",
        "total = total * (largest - shift).exp() + ",
        "total = total + ",
        "tests/csft/test_interest_loss.py::test_blocks_change_neither_loss_nor_gradient",
    ),
    Mutant(
        "a batch is enqueued before its loss",
        "recipes/csft.py",
        "        pool = memory.extend(everyones) if step >= config.memory_warmup_steps else Pool(everyones)",
        "        memory.enqueue(everyones)\n        pool = memory.extend(everyones)",
        "tests/csft/test_csft_recipe.py::test_loss_is_written_out_with_the_memory_of_the_batches_before",
    ),
    Mutant(
        "the candidates of other processes come without gradient",
        "csft/negatives.py",
        "gather_rows(rows).unflatten(",
        "gather_rows(rows.detach()).unflatten(",
        "tests/csft/test_processes.py::test_gradient_reaches_the_candidates_of_the_other_process",
    ),
    Mutant(
        "positives of the second process stand in the wrong rows",
        "csft/negatives.py",
        ".transpose(0, 1).flatten(0, 2)",
        ".flatten(0, 2)",
        "tests/csft/test_processes.py::test_space_time_negatives_are_those_of_all_processes_and_of_the_last_batches",
    ),
    Mutant(
        "gradients are averaged over processes whose losses are shares",
        "distributed.py",
        "parameter.grad = piece.view_as(parameter)",
        "parameter.grad = piece.view_as(parameter) / size()",
        "tests/test_distributed.py",
    ),
    Mutant(
        "each token is its own label in causal language modelling",
        "pretrain/causal_language.py",
        "ids[:, 1:][follows]",
        "ids[:, :-1][follows]",
        "tests/pretrain/test_causal_language.py::test_loss_and_gradient_of_published_weights_are_transformers_own",
    ),
    Mutant(
        "padding is predicted in causal language modelling",
        "pretrain/causal_language.py",
        "follows = mask[:, 1:]",
        "follows = mask[:, 1:] | True",
        "tests/pretrain/test_causal_language.py::test_padding_is_neither_predicted_nor_read",
    ),
    Mutant(
        "batch norm counts a batch again where activations are made again",
        "encoders/tuning.py",
        "norm.momentum, norm.num_batches_tracked = 0.0, None",
        "pass",
        "tests/encoders/test_tuning.py::test_activations_made_again_give_the_same_vectors_gradients_and_statistics",
    ),
    Mutant(
        "adapters are dropped in place of merged",
        "encoders/tuning.py",
        "            module.merge()\n",
        "",
        "tests/encoders/test_tuning.py::test_merged_weights_are_the_start_plus_the_scaled_product",
    ),
    Mutant(
        "vectors are permuted across categories in the leak control",
        "center/attach.py",
        'held[np.argsort(groups[held], kind="stable")]',
        "held",
        "tests/center/test_attach.py::test_the_leak_control_moves_vectors_within_their_category_only",
    ),
    Mutant(
        "a resumed run draws other random numbers",
        "train/seeds.py",
        "entropy = [seed, step] if rank() == 0 else [seed, step, rank()]",
        "entropy = None",
        "tests/train/test_run.py::test_a_killed_run_ends_where_an_undisturbed_one_ends",
    ),
    Mutant(
        "a changed input does not change the key",
        "train/stage.py",
        '"config": settings, "inputs": keys}',
        '"config": settings}',
        "tests/train/test_stage.py::test_a_changed_setting_or_input_makes_it_anew",
    ),
    Mutant(
        "titles take the vectors of pictures",
        "recipes/embed.py",
        "_pick(titles, contents.title_of_item[rows])",
        "_pick(titles, contents.picture_of_item[rows])",
        "tests/recipes/test_embed.py::test_every_item_and_query_has_the_vector_of_its_own_content",
    ),
    Mutant(
        "every process embeds every shard",
        "recipes/embed.py",
        "own = missing[rank() :: size()]",
        "own = missing",
        "tests/recipes/test_embed.py::test_two_processes_share_the_shards_and_write_what_one_writes",
    ),
    Mutant(
        "a back-end without an answer passes",
        "recipes/embed.py",
        "if not parity.mean_cosine >= MIN_COSINE:",
        "if parity.mean_cosine < MIN_COSINE:",
        "tests/recipes/test_embed.py::test_a_back_end_far_from_pytorch_is_refused_before_it_encodes",
    ),
    Mutant(
        "a JPEG is decoded at the wanted size",
        "images.py",
        "OVERSAMPLING = 2",
        "OVERSAMPLING = 1",
        "tests/data/test_images.py::test_a_jpeg_is_decoded_at_twice_the_wanted_size_at_least",
    ),
    Mutant(
        "texts ask in another order than their pairs",
        "recipes/catalogue.py",
        'np.argsort(np.argsort(reads, kind="stable"))',
        'np.argsort(reads, kind="stable")',
        "tests/csft/test_text_queries.py::test_a_batch_holds_the_vectors_of_its_queries",
    ),
    Mutant(
        "a query with a picture asks with its text too",
        "recipes/catalogue.py",
        "texts = queries[self.pictures.of_query[queries] < 0] if",
        "texts = queries if",
        "tests/csft/test_text_queries.py::test_a_query_asks_with_its_picture_or_else_with_its_text",
    ),
    Mutant(
        "a tie counts as a win",
        "evaluate/metrics.py",
        "2 * (start[run] - group_start) + length[run] + 1",
        "2 * (start[run] - group_start + length[run])",
        "tests/evaluate/test_metrics.py",
    ),
    Mutant(
        "bins of the reliability plot are filled in the order of the log",
        "evaluate/metrics.py",
        'order = np.argsort(probabilities, kind="stable")',
        "order = np.arange(len(probabilities))",
        "tests/evaluate/test_metrics.py::test_bins_are_those_of_a_loop_over_sorted_predictions",
    ),
    Mutant(
        "DeLong takes clicks and non-clicks for one sample",
        "evaluate/delong.py",
        "clicks.var(ddof=1) / len(clicks) + non_clicks.var(ddof=1) / len(non_clicks)",
        "(clicks.var(ddof=1) + non_clicks.var(ddof=1)) / (len(clicks) + len(non_clicks))",
        "tests/evaluate/test_delong.py::test_the_standard_error_is_the_jackknifes",
    ),
    Mutant(
        "impressions without a query are one query",
        "evaluate/scoring.py",
        "asked = queries > 0",
        "asked = queries >= 0",
        "tests/evaluate/test_scoring.py::test_gauc_runs_over_queries_too_and_leaves_out_what_has_none",
    ),
    Mutant(
        "a model is scored on its own vectors in place of shuffled ones",
        "recipes/train.py",
        "replace(task, content=shuffled)",
        "task",
        "tests/recipes/test_train.py::TestShuffledVectors::test_a_model_that_knows_nothing_else_falls_to_chance",
    ),
    Mutant(
        "vectors are shuffled across categories where their use is measured",
        "recipes/train.py",
        "table.permuted(dataset.item_fields[:, 0], seed=seed)",
        "table.permuted(0 * dataset.item_fields[:, 0], seed=seed)",
        "tests/recipes/test_train.py::TestShuffledVectors::test_vectors_that_say_the_category_and_no_more_are_not_missed",
    ),
    Mutant(
        "the test part decides which settings are best",
        "recipes/ctr_fitting.py",
        'rows = task.dataset.rows("validation")',
        'rows = task.dataset.rows("test")',
        "tests/recipes/test_sweep.py::TestTrials::test_the_test_part_has_no_say",
    ),
    Mutant(
        "every trial of a sweep draws the same numbers",
        "recipes/sweep_study.py",
        "entropy = [config.seed, len(finished_trials(study))]",
        "entropy = [config.seed]",
        "tests/recipes/test_sweep.py::TestTrials::test_every_trial_lies_within_the_search",
    ),
    Mutant(
        "an interrupted trial of a sweep is given up",
        "recipes/sweep_study.py",
        "return optuna.trial.Trial(study, trial_id)",
        "study.tell(trial.number, state=optuna.trial.TrialState.FAIL)",
        "tests/recipes/test_sweep.py::TestGoingOn::test_an_interrupted_sweep_ends_where_an_undisturbed_one_ends",
    ),
    Mutant(
        "TensorBoard shows the steps after a checkpoint twice",
        "train/events.py",
        "self._open(str(self._folder), purge_step=step)",
        "self._open(str(self._folder))",
        "tests/recipes/test_train.py::TestTensorBoard",
    ),
    Mutant(
        "exported predictions stand beside the next user",
        "data/dataset.py",
        "gather(impressions.user[rows] - FIRST_INDEX)",
        "gather((impressions.user[rows] - FIRST_INDEX + 1) % self.num_users)",
        "tests/recipes/test_evaluate.py::test_exported_predictions_join_the_raw_impressions_and_give_the_same_auc",
    ),
    Mutant(
        "a softmax over no behavior is spread over the padding",
        "ubm/masking.py",
        "    return weights.masked_fill(~mask, 0.0)",
        "    return weights",
        "tests/ubm/test_masking.py",
    ),
    Mutant(
        "padding has a share in the softmax",
        "ubm/masking.py",
        "weights = scores.masked_fill(~mask, lowest).softmax(dim=-1)",
        "weights = scores.masked_fill(~mask, 0.0).softmax(dim=-1)",
        "tests/ubm/test_masking.py",
    ),
    Mutant(
        "a batch of one loses its axis",
        "ubm/products.py",
        "many.transpose(1, 2)).squeeze(1)",
        "many.transpose(1, 2)).squeeze()",
        "tests/ubm/test_contract.py",
    ),
    Mutant(
        "Eq. (7) takes a softmax of the cosines",
        "ubm/content_interest.py",
        "return relevance, weighted_sum(relevance, behaviors)",
        "return relevance, weighted_sum(relevance.softmax(dim=1), behaviors)",
        "tests/ubm/test_content_interest.py",
    ),
    Mutant(
        "Dice's slope starts as PReLU's",
        "ubm/activations.py",
        "nn.Parameter(torch.zeros(dim))",
        "nn.Parameter(torch.full((dim,), 0.25))",
        "tests/ubm/test_din.py",
    ),
    Mutant(
        "the search keeps k - 1 behaviors",
        "ubm/search.py",
        'mask, float("-inf")).topk(k, dim=1).indices',
        'mask, float("-inf")).topk(k - 1, dim=1).indices',
        "tests/ubm/test_sim.py",
    ),
    Mutant(
        "SIM's hard search looks at no category",
        "ubm/sim.py",
        "history.mask & history.same_category",
        "history.mask",
        "tests/ubm/test_sim.py",
    ),
    Mutant(
        "SIM's time gaps are positions",
        "ubm/sim.py",
        "self.time(found.time_gaps)]",
        "self.time(mask.long().flip(1).cumsum(1).flip(1))]",
        "tests/ubm/test_sim.py",
    ),
    Mutant(
        "the auxiliary loss is never added",
        "recipes/ctr_fitting.py",
        "config.auxiliary_weight * output.auxiliary.loss_share(batch.clicks)",
        "0.0",
        "tests/recipes/test_train.py::TestAuxiliaryLoss",
    ),
    Mutant(
        "users of one class count in GAUC",
        "evaluate/metrics.py",
        "kept = (num_positive > 0) & (num_negative > 0)",
        "kept = num_positive > 0",
        "tests/evaluate/test_metrics.py",
    ),
    Mutant(
        "GAUC is weighted by clicks",
        "evaluate/metrics.py",
        "weights = num_rows[kept]",
        "weights = num_positive[kept]",
        "tests/evaluate/test_metrics.py",
    ),
    Mutant(
        "PCOC is upside down",
        "evaluate/metrics.py",
        "predicted.sum() / observed.sum()",
        "observed.sum() / predicted.sum()",
        "tests/evaluate/test_metrics.py",
    ),
    Mutant(
        "RelaImpr forgets the coin",
        "evaluate/metrics.py",
        "(value - 0.5) / (base - 0.5) - 1",
        "value / base - 1",
        "tests/evaluate/test_metrics.py",
    ),
    Mutant(
        "a snapshot of another catalogue is used",
        "recipes/embed.py",
        "    if not known.any():\n",
        "    if False:\n",
        "tests/recipes/test_bad_input.py::TestVectors::test_vectors_of_none_of_the_items_are_refused",
    ),
    Mutant(
        "damaged arrays are read",
        "data/checksums.py",
        "if _checksum(path) != expected:",
        "if expected is None:",
        "tests/recipes/test_bad_input.py::TestDamage::test_a_flipped_bit_of_a_dataset_is_told",
    ),
    Mutant(
        "two processes fill one folder",
        "train/stage.py",
        "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "os.fstat(handle)",
        "tests/train/test_stage.py",
    ),
    Mutant(
        "a part of one class is trained on",
        "recipes/train.py",
        "if clicks in (0, len(rows)):",
        "if False:",
        "tests/recipes/test_bad_input.py::TestOneClass",
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_changes_a_line_that_is_there_once(mutant):
    text = (PACKAGE / mutant.file).read_text()
    assert text.count(mutant.right) == 1, f"{mutant.file} has changed; name the line to mutate anew"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_named_test_catches_the_mutant(mutant, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "mimctr", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "mimctr" / mutant.file
    path.write_text(path.read_text().replace(mutant.right, mutant.wrong))

    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        mutant.test,
    ]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == TESTS_FAILED, (
        f"not caught: {mutant.name}\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
    )
