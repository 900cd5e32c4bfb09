"""SelectiveTrainer: transformers.Trainer for methods that read task and alignment data. The only optimisation code."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from selgen import adapters, launch, models, ranks
from selgen.core import Batch, Context, Method, PostHoc, Reference, Stream, Term, Tokens, Unit
from selgen.data.chat import Encoded, encode_all
from selgen.data.formats import to_examples
from selgen.data.pairing import Key, PairedRows, Pairing, PlannedBatches, plan_for, streams_for
from selgen.faster import check_padding_free, compiled_blocks
from selgen.lm import cross_entropy, unwrap
from selgen.reference import FrozenReference

Counts = Mapping[Unit, float]


class NonFiniteError(FloatingPointError):
    """A loss or gradient is NaN or infinite; training stopped before the weights were touched by it."""

    def __init__(self, step: int, term: str, value: float) -> None:
        self.step, self.term = step, term
        super().__init__(
            f"term {term!r} is {value} at optimizer step {step}. Training stopped. "
            "Lower training.learning_rate or the method's strength, or set training.max_grad_norm."
        )


@dataclass
class SelectiveConfig(TrainingArguments):
    """TrainingArguments plus what selective training adds.

    Args:
        max_length: Most tokens per example; a longer one is an error, since a cut would lose its answer.
        pairing: `proportional` adds the alignment set evenly, once per epoch, unless the method sets its own rate;
            `cycle` adds as many alignment rows as task rows to every step, cycling through the smaller set.
        padding_free: Give the model the rows of a micro-batch as one, without padding. Pays with flash attention, whose
            kernels skip what is not to be seen; other implementations compute attention between rows and drop it.
        compile_blocks: Compile the model's blocks with torch.compile: faster steps after a minute or so of compiling.
        reference_cache: Keep what the reference says about alignment data (`selgen.reference`), not compute it anew.
    """

    max_length: int | None = field(default=None, metadata={"help": "most tokens per example"})
    pairing: str = field(default="proportional", metadata={"help": "proportional or cycle"})
    padding_free: bool = field(default=False, metadata={"help": "no padding tokens in the model's input"})
    compile_blocks: bool = field(default=False, metadata={"help": "torch.compile the model's blocks"})
    reference_cache: bool = field(default=True, metadata={"help": "cache what the reference says"})

    def __post_init__(self) -> None:
        if self.torch_compile or self.torch_compile_backend or self.torch_compile_mode:
            raise ValueError(
                "torch_compile, its backend and mode should be unset, found one: losses read the model from within, "
                "which a whole compiled model hides. Set compile_blocks=True."
            )
        super().__post_init__()
        self.remove_unused_columns = False
        if self.pairing not in Pairing.__args__:
            raise ValueError(f"training.pairing should be proportional or cycle, found {self.pairing!r}.")
        if self.fp16:
            raise ValueError("training.fp16 should be false: half precision without range diverges. Use bf16.")


class SelectiveTrainer(Trainer):
    """Fine-tune selectively: learn `train_dataset` by `method`, keep the rest in place with `alignment_dataset`.

    Args:
        model: Hub id, model or adapter directory, `PreTrainedModel` or `PeftModel`.
        args: Training configuration; equal for all methods that are to be compared.
        train_dataset: Task data: `Example`s, or rows with `messages` or `prompt`/`completion`.
        alignment_dataset: Alignment data in the same forms; None only for methods that read none.
        method: How the two are combined.
        peft_config: LoRA configuration; None trains all weights (or the given PeftModel's fresh adapter).
        processing_class: Tokenizer; loaded with the model if that is a name.

    Raises:
        ValueError: an empty set, a stream that the method reads and the data lacks, over-long examples, a method that
            trains nothing, that needs whole weights where they are spread over processes, or that fits an adapter first
            where that cannot be.

    Attributes:
        reference: The frozen starting model.
        plan: Which rows join which step.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel | PeftModel,
        args: SelectiveConfig,
        train_dataset: Sequence[Any],
        alignment_dataset: Sequence[Any] | None = None,
        *,
        method: Method,
        peft_config: LoraConfig | None = None,
        processing_class: Any = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(method, PostHoc):
            raise ValueError(
                f"method {type(method).__name__} acts on a finished run and trains nothing. Start it with selgen train "
                "or selgen sweep, or choose another method."
            )
        problem = launch.config_problem() or launch.method_problem(method, type(method).__name__, launch.sharding())
        if problem:
            raise ValueError(problem)
        if args.world_size != launch.world():
            raise ValueError(
                f"the {launch.world()} processes that were launched should train together, found {args.world_size} in "
                "the configuration. Set use_cpu=True where there is no GPU, or launch one process."
            )
        args = copy.copy(args)  # the caller's may serve other methods too
        # One process uses one GPU; without this Trainer would spread each batch over all that it sees.
        args._n_gpu = min(args.n_gpu, 1)
        args.learning_rate *= method.lr_scale
        # Before the adapter is created: its initialisation is random.
        set_seed(args.seed)
        if isinstance(model, str | Path):
            model, tokenizer = models.load(model)
            processing_class = processing_class or tokenizer
        if processing_class is None:
            raise ValueError("processing_class should be the model's tokenizer, found None. Pass it, or a model name.")
        self.method = method
        seed = args.seed if args.data_seed is None else args.data_seed
        align = to_examples(alignment_dataset or [])
        self._sets = streams_for(method, to_examples(train_dataset), align, seed)
        rows: dict[Stream, list[Encoded]] = {
            stream: encode_all(processing_class, examples, args.max_length, stream)
            for stream, examples in self._sets.items()
        }
        self.plan = plan_for(
            method,
            len(rows["task"]),
            len(align),
            micro_batch=args.per_device_train_batch_size,
            accumulation=args.gradient_accumulation_steps * args.world_size,
            pairing=args.pairing,
            seed=seed,
        )
        trained, self._start = models.prepare(model, peft_config)
        if method.fits:
            adapters.check_sum(trained)
        if self._start is not None and launch.sharding():
            raise ValueError(
                f"the starting model should be no adapter with {launch.sharding()}: its sum with the new one is saved, "
                "of which each process has a part. Merge it into its base model first, or launch with DDP."
            )
        self.reference = FrozenReference(
            trained, rows, processing_class.pad_token_id, args.reference_cache, progress=not args.disable_tqdm
        )
        self._num_parameters = sum(p.numel() for p in trained.parameters())
        self._term_means: dict[str, Tensor] = {}
        self._steps = 0  # optimizer steps since the last log
        self._gradients: dict[str, dict[str, Tensor]] = defaultdict(dict)
        self._prepared = False
        self._fitted_sequences = 0
        self._failure: Exception | None = None
        self._pad_id: int = processing_class.pad_token_id
        read: dict[Stream, list[Encoded]] = {s: rows[s] for s in rows if s in ("task", *method.streams)}
        dataset = PairedRows(read, args.padding_free)
        super().__init__(
            model=trained,
            args=args,
            train_dataset=cast(Any, dataset),
            data_collator=cast(Any, partial(dataset.collate, pad_id=processing_class.pad_token_id)),
            processing_class=processing_class,
            **kwargs,
        )
        # Each process holds the whole model. Their gradients are summed here and not by torch's DDP, which expects the
        # same forward passes on all of them: one may have alignment rows in a step, and another none.
        self._sharded = launch.sharding() is not None
        if self._sharded and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError(
                f"{launch.sharding()} was asked for, and accelerate does not provide it on {args.device}. Launch with "
                "DDP (selgen's ddp.yaml), which works on every device."
            )
        self._sums_gradients = args.world_size > 1 and not self._sharded
        if self._sums_gradients:
            self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)

    def get_train_dataloader(self) -> DataLoader:
        dataset = cast(PairedRows, self.train_dataset)
        batches = PlannedBatches(self.plan, dataset.length, self.args.process_index, self.args.world_size)
        loader = DataLoader(
            cast(Any, dataset),
            batch_sampler=cast(Any, batches),
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
        )
        # One process, because the plan has divided the rows: accelerate would divide batches of unequal sizes again.
        return prepare_data_loader(loader, self.accelerator.device, 1, 0, put_on_device=True)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of one optimizer step and what each unit counts over all of them (and all ranks)."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        counts = {unit: float(sum(count(b) for b in batches)) for unit, count in _COUNT.items()}
        if self.args.world_size > 1:
            totals: Any = self.accelerator.reduce(torch.tensor(list(counts.values()), device=device), "sum")
            counts = dict(zip(counts, totals.tolist(), strict=True))
        return batches, counts

    def _prepare_input(self, data: Any) -> Any:
        return data.to(self.args.device) if isinstance(data, Tokens) else super()._prepare_input(data)

    def floating_point_ops(self, inputs: Any) -> float:
        """6 x parameters x tokens, the usual estimate of forward plus backward."""
        tokens = sum(int(t.attention_mask.sum()) for t in inputs.values())
        return 6.0 * self._num_parameters * tokens

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Backward of the method's terms, each divided by its unit's count over the whole optimizer step.

        With `separate_gradients` every term's gradient is accumulated apart and `method.combine` makes one of them on
        the step's last micro-batch, before clipping and the optimizer. Where every process holds the whole model, their
        gradients are summed there too, once; a process that fails says so before, since the others wait for it.
        """
        model.train()
        loss = torch.zeros((), device=self.args.device)
        try:
            if self._failure is None:
                loss = self._add_gradients(model, cast(Batch, self._prepare_inputs(inputs)), num_items_in_batch)
        except Exception as error:
            if not self._sums_gradients:
                raise
            self._failure = error
        if self.accelerator.sync_gradients:
            self._finish_gradients(model)
            self._steps += 1
            self._check_gradient(model)
        # Trainer logs the mean over processes of what are parts of one sum.
        return loss * self.args.world_size

    def _add_gradients(self, model: nn.Module, batch: Batch, counts: Counts) -> Tensor:
        """Adds a micro-batch's gradients to those of its step; the weighted loss, without gradient."""
        with self.compute_loss_context_manager():
            compute = partial(self._losses, model, batch, counts)
            # With weights in parts, the others would wait in the backward pass of a process that stopped.
            losses = ranks.together(compute) if self._sharded else compute()
        total = torch.stack(list(losses.values())).sum()
        if not self.method.separate_gradients:
            self._backward(total)
            return total.detach()
        params = _trainable(model)
        for term, loss in losses.items():
            self._backward(loss)
            kept = self._gradients[term]
            for name, p in params.items():
                grad = torch.zeros_like(p) if p.grad is None else p.grad
                kept[name] = kept[name] + grad if name in kept else grad
                p.grad = None
        return total.detach()

    def _losses(self, model: nn.Module, batch: Batch, counts: Counts) -> dict[str, Tensor]:
        terms = (
            self._losses_in_step(model, batch) if self._sharded else self.method.losses(model, batch, self.reference)
        )
        return {name: self._normalised(name, term, counts) for name, term in terms.items()}

    def _losses_in_step(self, model: nn.Module, batch: Batch) -> dict[str, Term]:
        """The method's terms, by the same forward passes on every process, as weights in parts need them.

        Where this process has no rows of a stream, others may have some: it takes the stream's first row along, and
        leaves out what comes of it, which is the term `task` for the task and all others for the rest.
        """
        dataset = cast(PairedRows, self.train_dataset)
        empty = [stream for stream, tokens in batch.items() if tokens.num_rows == 0]
        keys: list[Key] = [("task" if stream == "task" else "align", 0) for stream in empty]
        stand_in = dataset.collate(list(dict.fromkeys(keys)), self._pad_id)
        filled: Batch = {s: stand_in[s].to(self.args.device) if s in empty else t for s, t in batch.items()}
        terms = self.method.losses(model, filled, self.reference)
        idle = {
            name
            for name, term in terms.items()
            if term.unit != "one" and any((s == "task") == (name == "task") for s in empty)
        }
        return {name: replace(term, total=term.total * 0) if name in idle else term for name, term in terms.items()}

    def _finish_gradients(self, model: nn.Module) -> None:
        """Sums gradients over processes, and makes one of those that were kept apart."""
        failure, self._failure = self._failure, None
        if self._sums_gradients:
            ranks.share_failure(failure)
        params = _trainable(model)
        if self.method.separate_gradients:
            for grads in self._gradients.values() if self._sums_gradients else ():
                ranks.sum_gradients([*params.values()], [grads[name] for name in params])
            combined = self.method.combine(dict(self._gradients))
            for name, p in params.items():
                p.grad = combined[name]
            self._gradients.clear()
        elif self._sums_gradients:
            summed = ranks.sum_gradients([*params.values()], [p.grad for p in params.values()])
            for p, grad in zip(params.values(), summed, strict=True):
                p.grad = grad

    def _normalised(self, name: str, term: Term, counts: Counts) -> Tensor:
        count = counts[term.unit]
        mean = term.total.float() / count if count else term.total.float() * 0.0
        if not torch.isfinite(mean):
            raise NonFiniteError(self.state.global_step, name, mean.item())
        self._term_means[name] = self._term_means.get(name, torch.zeros_like(mean)).detach() + mean.detach()
        return term.weight * mean

    def _backward(self, loss: Tensor) -> None:
        if loss.requires_grad:
            # Every count is over all processes, whose gradients are to be summed: FSDP and DeepSpeed average them.
            # DeepSpeed would divide by the micro-batches once more.
            unscaled = {"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}
            self.accelerator.backward(loss if self._sums_gradients else loss * self.args.world_size, **unscaled)

    def _check_gradient(self, model: nn.Module) -> None:
        norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        if not torch.isfinite(norm):
            raise NonFiniteError(self.state.global_step, "gradient", norm.item())

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds `term/<name>`: each term's mean since the last log, without its weight, in its own unit."""
        if "loss" in logs:
            means = torch.stack([*self._term_means.values()]) / self._steps
            if self.args.world_size > 1:
                means = cast(Tensor, self.accelerator.reduce(means, "sum"))
            logs |= {f"term/{name}": mean for name, mean in zip(self._term_means, means.tolist(), strict=True)}
            self._term_means.clear()
            self._steps = 0
        super().log(logs, *args, **kwargs)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        model = cast(nn.Module, self.model)
        with ExitStack() as compiled:
            if cast(SelectiveConfig, self.args).compile_blocks:
                for one in self.reference.models(model):
                    compiled.enter_context(compiled_blocks(one))
            if not self._prepared:
                ranks.together(lambda: self._prepare_method(resuming=bool(resume_from_checkpoint)))
            if self._sums_gradients:
                ranks.equalise([*_trainable(model).values()])
            result = super().train(resume_from_checkpoint, *args, **kwargs)
        self.method.finish(self.model)
        return result

    def _prepare_method(self, resuming: bool) -> None:
        for stream in self.method.fits:
            self._fit(stream, resuming)
        asks = type(self.method).prepare is not Method.prepare or cast(SelectiveConfig, self.args).padding_free
        if self._sharded and asks:
            # Trainer leaves the model where it is until its weights are spread, and a CPU would cache for hours.
            cast(nn.Module, self.model).to(self.args.device)
        # What is cached must be computed as the training steps compute it, in mixed precision too.
        with self.accelerator.autocast():
            self._check_padding_free()
            given = (self.model, self.processing_class, self.args, self._sets, self.reference)
            context = Context(*given, step=lambda: self.state.global_step)
            self.method.prepare(context)
        self.reference.park()
        self._prepared = True

    def _check_padding_free(self) -> None:
        dataset, model = cast(PairedRows, self.train_dataset), cast(nn.Module, self.model)
        if dataset.padding_free and len(dataset) > 1:
            two = dataset.collate([("task", 0), ("task", 1)], self._pad_id)["task"]
            check_padding_free(model, two.to(unwrap(model).device))

    def _fit(self, stream: Stream, resuming: bool) -> None:
        """Learn a stream by an adapter of its own, which is then frozen and stays active; see `Method.fits`.

        Args:
            resuming: The fitted adapter is in the checkpoint: only make room for it.
        """
        model, trained = cast(PeftModel, self.model), cast(PeftModel, self.model).active_adapters
        args = cast(SelectiveConfig, copy.copy(self.args))
        # What surrounds the training on the task, and not this one.
        args.save_strategy, args.eval_strategy, args.report_to = SaveStrategy.NO, IntervalStrategy.NO, []
        args.load_best_model_at_end = args.push_to_hub = False
        args.compile_blocks = False  # they are compiled while all of this goes on
        adapters.add_beside(model, stream, args.seed)
        fitting = SelectiveTrainer(
            model, args, self._sets[stream], method=_Fit(stream), processing_class=self.processing_class
        )
        fitting.remove_callback(PrinterCallback)
        if not resuming:
            fitting.train()
        whole = ceil(args.num_train_epochs * fitting.plan.steps_per_epoch)
        steps = args.max_steps if args.max_steps > 0 else whole
        self._fitted_sequences += fitting.plan.num_sequences(steps)
        adapters.train_beside(model, trained[0], [*trained[1:], stream])

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Like Trainer's, which leaves only the first of several adapters active, and all of it to be trained."""
        trainable = [(p, p.requires_grad) for p in cast(nn.Module, self.model).parameters()]
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.method.fits:
            trained = cast(PeftModel, self.model).active_adapters[0]
            adapters.train_beside(cast(PeftModel, self.model), trained, self.method.fits)
        for parameter, was_trainable in trainable:
            parameter.requires_grad_(was_trainable)

    @property
    def num_sequences(self) -> int:
        """Sequences (task, alignment, rejected) seen so far, those of fitted streams included."""
        return self._fitted_sequences + self.plan.num_sequences(self.state.global_step)

    def update_norm(self) -> float:
        """L2 norm of the change of the effective weights since step 0."""
        return adapters.update_norm(self.model, self.reference.start)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Like Trainer's; an adapter trained on top of or beside another is saved as their sum, for the raw base."""
        if _internal_call or (self._start is None and not self.method.fits):
            super().save_model(output_dir, _internal_call)
        elif self.args.should_save:
            models.save(self.model, self.processing_class, output_dir or str(self.args.output_dir), self._start)


@dataclass
class _Fit(Method):
    """Plain training on a stream, which stands for the task.

    Args:
        stream: Its name, for messages.
    """

    stream: Stream
    streams = ("task",)

    def losses(self, model: Any, batch: Batch, ref: Reference) -> dict[str, Term]:
        return {f"{self.stream}, before the task": cross_entropy(model, batch["task"])}


_COUNT: dict[Unit, Any] = {
    "task_tokens": lambda b: b["task"].num_targets,
    "align_tokens": lambda b: b["align"].num_targets if "align" in b else 0,
    "all_tokens": lambda b: sum(tokens.num_targets for tokens in b.values()),
    "align_positions": lambda b: int(b["align"].attention_mask.sum()) if "align" in b else 0,
    "pairs": lambda b: b["rejected"].num_rows if "rejected" in b else 0,
    "one": lambda b: 1,
}


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
