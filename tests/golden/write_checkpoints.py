"""Checkpoints as real trainers write them, small: `python write_checkpoints.py FOLDER WRITER...`.

Run with a Python that has the writers' packages (tests/golden/README.md says which); it imports nothing of hiresvit.
Beside the files it leaves FOLDER/expected.json: for each file what the live objects hold, as the sum of the first
weight: "plain" as trained, "ema" the averaged copy. `tests/models/test_trainers.py` reads them.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import os
import pathlib
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

FIRST = "stem.conv1.weight"


def models():
    """A miniature of the authors' layouts: a classifier, and a segmentor of the same backbone."""
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.to_qkv = nn.Linear(4, 8, bias=False)

    class Backbone(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Module()
            self.stem.conv1 = nn.Conv2d(3, 4, 3, bias=False)
            self.stem.bn1 = nn.BatchNorm2d(4)
            block = nn.Module()
            block.attn = Attention()
            self.features = nn.Sequential(nn.Identity(), block)

        def tokens(self, image):
            maps = self.stem.bn1(self.stem.conv1(image))
            return self.features[1].attn.to_qkv(maps.flatten(2).mean(2))[:, :4]

    class Net(Backbone):
        def __init__(self):
            super().__init__()
            self.head = nn.Module()
            self.head.classifier = nn.Linear(4, 10)

        def forward(self, image):
            return self.head.classifier(self.tokens(image))

    class Segmentor(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = Backbone()
            self.decode_head = nn.Module()
            self.decode_head.conv_seg = nn.Conv2d(4, 19, 1)

        def logits(self, image):
            return self.decode_head.conv_seg(self.backbone.tokens(image)[:, :, None, None])

    for made in (Attention, Backbone, Net, Segmentor):  # so that a model can be pickled whole
        made.__qualname__ = made.__name__
        globals()[made.__name__] = made
    torch.manual_seed(0)
    return Net, Segmentor


def train(net, steps=2, after=lambda: None):
    import torch

    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 5, 5)).square().mean().backward()
        optimizer.step()
        after()
    return optimizer


def first(state) -> float:
    """The sum of the first weight: of a module, or of a state dict."""
    state = state if isinstance(state, dict) else state.state_dict()
    [found] = [value for key, value in state.items() if key.endswith(FIRST)]
    return float(found.detach().double().sum())


def timm(folder):
    import torch
    from timm.utils import CheckpointSaver, ModelEmaV3

    Net, _ = models()
    net = Net()
    ema = ModelEmaV3(net, decay=0.5)
    optimizer = train(net, after=lambda: ema.update(net))
    args = argparse.Namespace(model="hrvit_b1", lr=1e-3, mean=None, data_dir=pathlib.Path("data"))
    with tempfile.TemporaryDirectory() as made:
        saver = CheckpointSaver(net, optimizer, args=args, model_ema=ema, checkpoint_dir=made, recovery_dir=made)
        saver.save_checkpoint(3, metric=71.5)
        os.replace(Path(made) / "checkpoint-3.pth.tar", folder / "timm.pth.tar")
    yield "timm.pth.tar", {"plain": first(net), "ema": first(ema.module)}


def deit(folder):
    """What the training script of DeiT, and of many that began with it, saves."""
    import torch

    Net, _ = models()
    net, ema = Net(), Net()
    optimizer = train(net)
    content = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "lr_scheduler": {"last_epoch": 3}}
    content |= {"epoch": 3, "model_ema": ema.state_dict(), "scaler": {"scale": 65536.0}}
    content["args"] = argparse.Namespace(output_dir=pathlib.Path("out"), started=datetime.datetime(2026, 1, 1))
    torch.save(content, folder / "deit.pth")
    yield "deit.pth", {"plain": first(net), "ema": first(ema)}


def torch_wrappers(folder):
    import torch
    from torch import nn
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.optim.swa_utils import AveragedModel

    Net, _ = models()
    plain = Net()
    train(plain)

    def saved(name, content, *, how={}, **sums):
        torch.save(content, folder / name, **how)
        return name, sums or {"plain": first(plain)}

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(copy.deepcopy(plain))
        yield saved("ddp.pth", {"model_state_dict": parallel.state_dict(), "epoch": 1})
        yield saved("compile.pth", torch.compile(copy.deepcopy(plain)).state_dict())
        yield saved("compile_ddp.pth", {"net": torch.compile(parallel).state_dict()})
        inside = copy.deepcopy(plain)
        inside.features = torch.compile(inside.features)
        yield saved("compile_part.pth", nn.DataParallel(inside).state_dict())
        from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

        inside = copy.deepcopy(plain)
        inside.features[1] = checkpoint_wrapper(inside.features[1])
        yield saved("fsdp.pth", {"model": FullyShardedDataParallel(inside, device_id=torch.device("cpu")).state_dict()})
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        sharded = copy.deepcopy(plain)
        torch.distributed.fsdp.fully_shard(sharded, mesh=mesh)
        torch.save(sharded.state_dict(), folder / "dtensor.pth")
        yield "dtensor.pth", {"refused": "is a torch.distributed.tensor.DTensor, not a plain tensor"}
    finally:
        torch.distributed.destroy_process_group()
    average = AveragedModel(plain)
    average.update_parameters(Net())
    average.update_parameters(plain)
    yield saved("swa.pth", {"state_dict": average.state_dict()}, plain=first(average), ema=first(average))
    yield saved("whole.pth", {"model": nn.DataParallel(plain), "epoch": 1})
    yield saved("legacy.pth", plain.state_dict(), how={"_use_new_zipfile_serialization": False})
    yield saved("protocol4.pth", {"weights": plain.state_dict()}, how={"pickle_protocol": 4})
    yield saved("numpy.pth", {"params": {key: value.numpy() for key, value in plain.state_dict().items()}})
    teacher = Net()
    both = {"student": plain.state_dict(), "teacher": teacher.state_dict()}
    yield saved("student_teacher.pth", both, student=first(plain), teacher=first(teacher))


def counters(folder):
    import thop
    import torch

    Net, _ = models()
    net = Net()
    train(net)
    thop.profile(net, (torch.randn(1, 3, 5, 5),), verbose=False)
    for name, module in net.named_modules():  # what thop leaves where a training was stopped while it counted
        for counter in ("total_ops", "total_params"):
            if counter not in module._buffers:
                module.register_buffer(counter, torch.zeros(1, dtype=torch.float64))
    torch.save({"state_dict": net.state_dict()}, folder / "thop.pth")
    yield "thop.pth", {"plain": first(net)}


def ema_pytorch(folder):
    import torch
    from ema_pytorch import EMA

    Net, _ = models()
    net = Net()
    ema = EMA(net, beta=0.5, update_after_step=0, update_every=1)
    train(net, after=ema.update)
    torch.save({"ema": ema.state_dict(), "step": 3}, folder / "ema_pytorch.pth")
    yield "ema_pytorch.pth", {"plain": first(net), "ema": first(ema.ema_model)}


def lightning(folder):
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
    from torch import nn

    Net, _ = models()

    class Training(pl.LightningModule):
        def __init__(self, data=pathlib.Path("data"), betas=(0.9, 0.99)):
            super().__init__()
            self.save_hyperparameters()
            self.model = Net()
            self.criterion = nn.CrossEntropyLoss(weight=torch.ones(10))

        def training_step(self, batch, _):
            return self.criterion(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.1)

    data = torch.utils.data.TensorDataset(torch.randn(4, 3, 5, 5), torch.arange(4))
    for name, extra in (("lightning", []), ("lightning_ema", [EMAWeightAveraging(decay=0.5)])):
        module = Training()
        with tempfile.TemporaryDirectory() as made:
            keep = ModelCheckpoint(dirpath=made, filename="last")
            trainer = pl.Trainer(
                max_epochs=2, accelerator="cpu", callbacks=[keep, *extra], logger=False, enable_progress_bar=False,
                enable_model_summary=False, default_root_dir=made,
            )
            sums = {}
            if extra:
                save = extra[0].on_save_checkpoint

                def spied(trainer, module, checkpoint, save=save, sums=sums, hook=extra[0]):
                    if hook._average_model is not None:
                        sums |= {"plain": first(module), "ema": first(hook._average_model)}
                    save(trainer, module, checkpoint)

                extra[0].on_save_checkpoint = spied
            trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=2))
            os.replace(Path(made) / "last.ckpt", folder / f"{name}.ckpt")
        yield f"{name}.ckpt", sums or {"plain": first(module)}


def mmengine(folder):
    import torch
    from mmengine.hooks import EMAHook
    from mmengine.model import BaseModel
    from mmengine.runner import Runner
    from torch.utils.data import DataLoader

    _, Segmentor = models()

    class Model(Segmentor, BaseModel):
        def __init__(self):
            BaseModel.__init__(self, data_preprocessor={"type": "ImgDataPreprocessor", "mean": [1, 2, 3], "std": [4, 5, 6]})
            made = Segmentor()
            self.backbone, self.decode_head = made.backbone, made.decode_head

        def forward(self, inputs, data_samples=None, mode="tensor"):
            return {"loss": self.logits(inputs).square().mean()}

    class Data(torch.utils.data.Dataset):
        metainfo = {"classes": ("road", "sky"), "palette": [[128, 64, 128], [70, 130, 180]]}

        def __len__(self):
            return 4

        def __getitem__(self, _):
            return {"inputs": torch.randn(3, 5, 5)}

    class Spy(EMAHook):
        def before_save_checkpoint(self, runner, checkpoint):
            sums.clear()
            sums.update(plain=first(self.src_model), ema=first(self.ema_model))
            super().before_save_checkpoint(runner, checkpoint)

    for name, hooks in (("mmengine", []), ("mmengine_ema", [Spy(momentum=0.5)])):
        sums = {}
        with tempfile.TemporaryDirectory() as made:
            net = Model()
            runner = Runner(
                net, made, train_dataloader=DataLoader(Data(), 2), train_cfg={"by_epoch": False, "max_iters": 3},
                optim_wrapper={"optimizer": {"type": "AdamW", "lr": 0.1}}, custom_hooks=hooks, default_scope="mmengine",
                default_hooks={"logger": {"type": "LoggerHook", "interval": 1},
                               "checkpoint": {"type": "CheckpointHook", "interval": 3, "by_epoch": False}},
                experiment_name=name, cfg={"model": {"type": "Model"}, "note": "x"}, log_level="ERROR",
            )
            runner.train()
            os.replace(Path(made) / "iter_3.pth", folder / f"{name}.pth")
        yield f"{name}.pth", sums or {"plain": first(net)}


def mask2former(folder):
    """mmengine's Runner with a model of LRFormer-T+'s 639 keys, 19 classes; but for the first weight one zero for each."""
    classes = tuple(f"class {number}" for number in range(19))
    listed = _listed("lrformer_t_plus")
    listed = [(key, [len(classes) + 1, *shape[1:]] if ".cls_embed." in key else shape, kind) for key, shape, kind in listed]
    yield _trained_by_mmengine(folder, "mmengine_plus.pth", listed, classes)


def mmdet(folder):
    """The same of MixFormer-B0 in mmdet's RetinaNet and Faster R-CNN, 7 classes: FPN from C3 on, towers of four."""
    classes = tuple("abcdefg")
    body = [(f"backbone.{key}", shape, kind) for key, shape, kind in _listed("mixformer_b0")
            if not key.startswith(("head.", "last_proj.", "norm."))]  # fmt: skip
    body += [(key.replace("running_var", "num_batches_tracked"), [], "int64") for key, _, _ in body if "running_var" in key]
    retina = [
        *((f"neck.lateral_convs.{i}.conv", 256, width, 1) for i, width in enumerate((48, 96, 192))),
        *((f"neck.fpn_convs.{i}.conv", 256, 192 if i == 3 else 256, 3) for i in range(5)),
        *((f"bbox_head.{kind}_convs.{i}.conv", 256, 256, 3) for kind in ("cls", "reg") for i in range(4)),
        ("bbox_head.retina_cls", 9 * len(classes), 256, 3), ("bbox_head.retina_reg", 9 * 4, 256, 3),
    ]  # fmt: skip
    faster = [
        *((f"neck.lateral_convs.{i}.conv", 256, width, 1) for i, width in enumerate((24, 48, 96, 192))),
        *((f"neck.fpn_convs.{i}.conv", 256, 256, 3) for i in range(4)),
        ("rpn_head.rpn_conv", 256, 256, 3), ("rpn_head.rpn_cls", 3, 256, 1), ("rpn_head.rpn_reg", 12, 256, 1),
    ]  # fmt: skip
    linear = [("shared_fcs.0", 1024, 12544), ("shared_fcs.1", 1024, 1024), ("fc_cls", 8, 1024), ("fc_reg", 28, 1024)]
    for name, convolutions in (("mmengine_retinanet.pth", retina), ("mmengine_faster_rcnn.pth", faster)):
        rest = [(key, [out, taken, side, side]) for key, out, taken, side in convolutions]
        if convolutions is faster:
            rest += [(f"roi_head.bbox_head.{key}", [out, taken]) for key, out, taken in linear]
        heads = [(f"{key}.{what}", shape if what == "weight" else shape[:1], "float32")
                 for key, shape in rest for what in ("weight", "bias")]  # fmt: skip
        yield _trained_by_mmengine(folder, name, [*body, *heads], classes)


def _listed(name):
    return json.loads((Path(__file__).parent / f"{name}.keys.json").read_text())["keys"]


def _trained_by_mmengine(folder, file, listed, classes):
    """A step of mmengine's Runner on a model of (key, shape, dtype): a file, and the sum of the first of its weights."""
    import torch
    from mmengine.model import BaseModel
    from mmengine.runner import Runner
    from torch import nn
    from torch.utils.data import DataLoader

    class Model(BaseModel):
        def __init__(self):
            super().__init__(data_preprocessor={"type": "ImgDataPreprocessor", "mean": [123.675, 116.28, 103.53],
                                                "std": [58.395, 57.12, 57.375]})
            for number, (key, shape, dtype) in enumerate(listed):
                *path, name = key.split(".")
                owner = self
                for part in path:
                    if part not in owner._modules:
                        owner.add_module(part, nn.Module())
                    owner = owner._modules[part]
                value = torch.zeros((), dtype=getattr(torch, dtype)).expand(shape) if number else torch.ones(shape)
                if value.is_floating_point() and not name.startswith("running_"):
                    owner.register_parameter(name, nn.Parameter(value, requires_grad=not number))
                else:
                    owner.register_buffer(name, value)

        @property
        def first(self):
            return self.get_parameter(listed[0][0])

        def forward(self, inputs, data_samples=None, mode="tensor"):
            return {"loss": self.first.square().mean()}

    class Data(torch.utils.data.Dataset):
        metainfo = {"classes": classes, "palette": [[number, 0, 0] for number in range(len(classes))]}

        def __len__(self):
            return 2

        def __getitem__(self, _):
            return {"inputs": torch.zeros(3, 5, 5)}

    net = Model()
    with tempfile.TemporaryDirectory() as made:
        runner = Runner(
            net, made, train_dataloader=DataLoader(Data(), 2), train_cfg={"by_epoch": False, "max_iters": 1},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}}, default_scope="mmengine",
            default_hooks={"logger": {"type": "LoggerHook", "interval": 1},
                           "checkpoint": {"type": "CheckpointHook", "interval": 1, "by_epoch": False}},
            experiment_name=file, log_level="ERROR",
        )  # fmt: skip
        runner.train()
        os.replace(Path(made) / "iter_1.pth", folder / file)
    return file, {"plain": float(net.first.detach().double().sum())}


def mmcv(folder):
    """mmcv 1.x, of which mmseg 0.x is: its EMAHook, once in training by iterations and once early in an epoch."""
    import logging

    import torch
    from mmcv.runner import EMAHook, EpochBasedRunner, IterBasedRunner
    from torch.utils.data import DataLoader

    _, Segmentor = models()

    class Model(Segmentor):
        def train_step(self, image, optimizer, **_):
            return {"loss": self.logits(image).square().mean(), "num_samples": 2, "log_vars": {}}

    for name, kind, priority in (
        ("mmcv", IterBasedRunner, None), ("mmcv_iter_ema", IterBasedRunner, 50), ("mmcv_epoch_ema", EpochBasedRunner, 50),
        ("mmcv_epoch_ema_early", EpochBasedRunner, 49),
    ):
        net = Model()
        hook = f"custom_hooks = [dict(type='EMAHook', momentum=0.5, priority={priority})]\n" if priority else ""
        config = f"runner = dict(type='{kind.__name__}')\n{hook}"
        meta = {"CLASSES": ("road", "sky"), "PALETTE": [[128, 64, 128], [70, 130, 180]], "config": config}
        with tempfile.TemporaryDirectory() as made:
            log = logging.getLogger(name)
            log.setLevel(logging.ERROR)
            limit = {"max_epochs": 2} if kind is EpochBasedRunner else {"max_iters": 3}
            optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
            runner = kind(net, optimizer=optimizer, work_dir=made, logger=log, meta=meta, **limit)
            by_epoch = kind is EpochBasedRunner
            runner.register_optimizer_hook({"grad_clip": None})
            runner.register_checkpoint_hook({"interval": 1 if by_epoch else 3, "by_epoch": by_epoch})
            before = {}
            if priority:
                ema = EMAHook(momentum=0.5, warm_up=1)
                runner.register_hook(ema, priority)
                # Which is which is told by the order of what happens, as the hook's own methods are called.
                swap, state = ema._swap_ema_parameters, {"swapped": False}

                def spied(swap=swap, state=state):
                    swap()
                    state["swapped"] = not state["swapped"]

                ema._swap_ema_parameters = spied
                save = runner.save_checkpoint

                def spy(*args, **kwargs):
                    own = first(net.backbone)
                    other = float(net.ema_backbone_stem_conv1_weight.double().sum())
                    # An epoch begins with an exchange, the first one of equal sets, and ends with another.
                    exchanged = by_epoch and not state["swapped"]
                    plain, average = (other, own) if exchanged else (own, other)
                    before.update(plain=plain, ema=average)
                    save(*args, **kwargs)

                runner.save_checkpoint = spy
            runner.run([DataLoader(torch.randn(4, 3, 5, 5), 2)], [("train", 1)])
            file = Path(made) / ("epoch_2.pth" if by_epoch else "iter_3.pth")
            os.replace(file, folder / f"{name}.pth")
        yield f"{name}.pth", before or {"plain": first(net)}


def pictures(folder):
    """Files that say how their network takes a picture, each by the library that would write it."""
    yield from _mmengine_pictures(folder)
    yield _mmcv_pictures(folder)
    yield _timm_pictures(folder)
    yield _lightning_pictures(folder)


def _mmengine_pictures(folder):
    """mmengine's Runner keeps the text of its Config; one trained on BGR and aligned, one tested in windows."""
    import torch
    from mmengine.config import Config
    from mmengine.model import BaseModel
    from mmengine.runner import Runner
    from torch.utils.data import DataLoader

    _, Segmentor = models()

    class Model(Segmentor, BaseModel):
        def __init__(self):
            BaseModel.__init__(self)
            made = Segmentor()
            self.backbone, self.decode_head = made.backbone, made.decode_head

        def forward(self, inputs, data_samples=None, mode="tensor"):
            return {"loss": self.logits(inputs).square().mean()}

    class Data(torch.utils.data.Dataset):
        metainfo = {"classes": ("road", "sky"), "palette": [[128, 64, 128], [70, 130, 180]]}

        def __len__(self):
            return 2

        def __getitem__(self, _):
            return {"inputs": torch.randn(3, 5, 5)}

    bgr = dict(type="SegDataPreProcessor", mean=[104.0, 117.3, 122.4], std=[51.0, 25.5, 1.0], bgr_to_rgb=False)
    rgb = dict(type="SegDataPreProcessor", mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], bgr_to_rgb=True)
    steps = [dict(type="LoadImageFromFile"), dict(type="PackSegInputs")]
    aligned, plain = dict(type="AlignResize", scale=(2048, 512), keep_ratio=True, size_divisor=16), dict(type="Resize", scale=(512, 256))
    slide = dict(mode="slide", crop_size=(96, 96), stride=(64, 64))
    rows = {
        "mmengine_bgr.pth": dict(data_preprocessor=bgr, model=dict(type="Model", data_preprocessor=bgr, test_cfg=dict(mode="whole")),
                                 test_pipeline=[steps[0], aligned, steps[1]]),
        "mmengine_slide.pth": dict(model=dict(type="Model", data_preprocessor=rgb, test_cfg=slide),
                                   test_pipeline=[steps[0], plain, steps[1]]),
    }  # fmt: skip
    for name, config in rows.items():
        with tempfile.TemporaryDirectory() as made:
            net = Model()
            runner = Runner(
                net, made, cfg=Config(config), train_dataloader=DataLoader(Data(), 2), default_scope="mmengine",
                train_cfg={"by_epoch": False, "max_iters": 1}, optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.1}},
                default_hooks={"logger": {"type": "LoggerHook", "interval": 1},
                               "checkpoint": {"type": "CheckpointHook", "interval": 1, "by_epoch": False}},
                experiment_name=name, log_level="ERROR",
            )  # fmt: skip
            runner.train()
            os.replace(Path(made) / "iter_1.pth", folder / name)
        yield name, {"plain": first(net)}


def _mmcv_pictures(folder):
    """mmcv 1.x: what mmseg 0.x puts into meta is the text of its Config."""
    from mmcv import Config
    from mmcv.runner import save_checkpoint

    _, Segmentor = models()
    net = Segmentor()
    normalise = dict(mean=[0.0, 51.0, 102.0], std=[255.0, 255.0, 127.5], to_rgb=True)
    inner = [dict(type="Resize", keep_ratio=False), dict(type="RandomFlip"), dict(type="Normalize", **normalise)]
    outer = dict(type="MultiScaleFlipAug", img_scale=(2048, 512), flip=False, transforms=inner)
    config = Config(dict(img_norm_cfg=normalise, test_pipeline=[dict(type="LoadImageFromFile"), outer]))
    save_checkpoint(net, str(folder / "mmcv_pictures.pth"), meta={"config": config.pretty_text})
    return "mmcv_pictures.pth", {"plain": first(net)}


def _timm_pictures(folder):
    from timm.utils import CheckpointSaver

    Net, _ = models()
    net = Net()
    optimizer = train(net)
    args = argparse.Namespace(model="hrvit_b1", mean=[0.5, 0.25, 0.75], std=[0.5, 0.5, 0.5], crop_pct=0.95,
                              interpolation="bilinear")  # fmt: skip
    with tempfile.TemporaryDirectory() as made:
        CheckpointSaver(net, optimizer, args=args, checkpoint_dir=made, recovery_dir=made).save_checkpoint(0, metric=1.0)
        os.replace(Path(made) / "checkpoint-0.pth.tar", folder / "timm_pictures.pth.tar")
    return "timm_pictures.pth.tar", {"plain": first(net)}


def _lightning_pictures(folder):
    import lightning.pytorch as pl
    import torch

    Net, _ = models()

    class Training(pl.LightningModule):
        def __init__(self, mean=(127.5, 127.5, 0.0), std=(255.0, 255.0, 51.0), lr=0.1):
            super().__init__()
            self.save_hyperparameters()
            self.model = Net()

        def training_step(self, batch, _):
            return self.model(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)

    module = Training()
    data = torch.utils.data.TensorDataset(torch.randn(4, 3, 5, 5))
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False,
                         enable_model_summary=False, enable_checkpointing=False)  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=2))
    trainer.save_checkpoint(folder / "lightning_pictures.ckpt")
    return "lightning_pictures.ckpt", {"plain": first(module)}


def paddle(folder):
    import numpy as np
    import paddle
    from paddle import nn

    class Net(nn.Layer):
        def __init__(self):
            super().__init__()
            self.stem = nn.Layer()
            self.stem.conv1 = nn.Conv2D(3, 4, 3, bias_attr=False)
            self.stem.bn1 = nn.BatchNorm2D(4)
            self.head = nn.Linear(4, 10)

    net = Net()
    sums = {"plain": float(net.stem.conv1.weight.numpy().astype(np.float64).sum())}
    paddle.save(net.state_dict(), str(folder / "paddle.pdparams"))
    yield "paddle.pdparams", sums
    paddle.save(net.state_dict(), str(folder / "paddle_protocol2.pdparams"), protocol=2)
    yield "paddle_protocol2.pdparams", sums
    paddle.save({"model": net.state_dict(), "epoch": 3}, str(folder / "paddle_nested.pdparams"))
    yield "paddle_nested.pdparams", sums


WRITERS = {
    "timm": (timm, "timm"), "deit": (deit, "torch"), "torch": (torch_wrappers, "torch"), "thop": (counters, "thop"),
    "ema_pytorch": (ema_pytorch, "ema-pytorch"), "lightning": (lightning, "lightning"), "mmengine": (mmengine, "mmengine"),
    "mask2former": (mask2former, "mmengine"),
    "mmdet": (mmdet, "mmengine"),
    "mmcv": (mmcv, "mmcv"), "pictures": (pictures, "mmengine"), "paddle": (paddle, "paddlepaddle"),
}  # fmt: skip


def main(folder: str, *names: str) -> None:
    target = Path(folder)
    target.mkdir(exist_ok=True)
    listed = target / "expected.json"
    expected = json.loads(listed.read_text()) if listed.exists() else {}
    for name in names or WRITERS:
        write, package = WRITERS[name]
        for file, sums in write(target):
            expected[file] = {"writer": f"{package} {version(package)}", **sums}
            print(file, sums, (target / file).stat().st_size)
    listed.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
