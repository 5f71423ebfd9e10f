"""ImageNet-1k in its layouts: what a class is called in folders and lists, and orders that would be silently wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published import photo, save, write_imagenet_folders, write_jpeg

from hiresvit.data.dataset import check_fit
from hiresvit.data.image import load_image
from hiresvit.data.labels import table_rows
from hiresvit.data.open import open_dataset
from hiresvit.data.pairs import Pairs
from hiresvit.errors import HiresvitError, UsageError
from hiresvit.spec import ModelSpec, PreprocessSpec

GOLDEN = Path(__file__).parents[1] / "golden"
# The first pictures of the validation set: class in caffe's val.txt (get_ilsvrc_aux.sh), WNID in TensorFlow's
# imagenet_2012_validation_synset_labels.txt, id in the development kit's ILSVRC2012_validation_ground_truth.txt.
FIRST = [
    (65, "n01751748", 490), (970, "n09193705", 361), (230, "n02105855", 171), (809, "n04263257", 822),
    (516, "n03125729", 297), (57, "n01735189", 482), (334, "n02346627", 13), (415, "n02776631", 704),
    (674, "n03794056", 599), (332, "n02328150", 164), (109, "n01917289", 649), (286, "n02125311", 11),
]  # fmt: skip
INDICES = [index for index, _, _ in FIRST]


def file_name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def imagenet(root: Path, split: str | None = None) -> Pairs:
    found = open_dataset("imagenet", folder=root, split=split, imgsz=(1, 1))
    assert isinstance(found, Pairs)
    return found


def classes_of(found: Pairs) -> list[int]:
    return [int(truth) for _, truth in found.pairs]


def write_flat(folder: Path, numbers: Iterable[int] = range(1, 13)) -> Path:
    for number in numbers:
        write_jpeg(folder / file_name(number))
    return folder


def test_wnids_and_ids_are_those_of_other_peoples_tables() -> None:
    """The sums are of timm's imagenet_synsets.txt, and of the first two columns of the devkit's map_clsloc.txt."""
    rows = table_rows("imagenet")
    wnids = [row["wnid"] for row in rows]
    kit = sorted((row["ilsvrc"], row["wnid"]) for row in rows)
    for lines, expected in (
        (wnids, "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"),
        (
            [f"{wnid} {number}" for number, wnid in kit],
            "1e26a867b25b7a4dece819932fb02f86a914791e3ac136ae2d99132c7cb808c3",
        ),
    ):
        assert hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest() == expected
    assert [(wnids.index(wnid), wnid, rows[index]["ilsvrc"]) for index, wnid, _ in FIRST] == FIRST
    assert {i: rows[i]["name"] for i in (0, 65, 970)} == {0: "tench", 65: "sea snake", 970: "alp"}


def test_folders_are_classes_and_pictures_come_in_their_own_order(tmp_path: Path) -> None:
    """As in the flat set, so that the first thousand are no tenches."""
    names = {wnid: [file_name(number)] for number, (_, wnid, _) in enumerate(FIRST, 1)}
    names["n01440764"] = [file_name(20), file_name(293)]
    names["n15075141"] = [file_name(13)]
    write_imagenet_folders(tmp_path / "val", names)
    (tmp_path / "val" / "n01440764" / "._x.JPEG").write_bytes(b"\0")
    (tmp_path / "val" / "val.txt").write_text("not looked at")
    found = imagenet(tmp_path)
    assert (found.name, found.task, found.ignore, len(found.classes)) == ("imagenet val", "classify", -1, 1000)
    assert classes_of(found) == [*INDICES, 999, 0, 0]
    assert found.name_of(0) == "val/n01751748/ILSVRC2012_val_00000001.JPEG"
    assert found.classes[int(found[13].labels)] == "tench"
    assert found[0].image.shape == (5, 7, 3)
    for root in (tmp_path / "val", tmp_path / "val" / "..", tmp_path):
        assert classes_of(imagenet(root)) == classes_of(found)
    write_imagenet_folders(tmp_path / "train", {"n01443537": ["n01443537_10007.JPEG"]})
    assert classes_of(imagenet(tmp_path, "train")) == [1]
    write_imagenet_folders(tmp_path / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC" / "val", names)
    assert classes_of(imagenet(tmp_path / "kaggle")) == classes_of(found)


def lines_of(row: Callable[[int, int, str, int], str]) -> str:
    return "".join(f"{row(number, *said)}\n" for number, said in enumerate(FIRST, 1))


KAGGLE = "ImageId,PredictionString\n" + lines_of(lambda n, i, w, k: f"{file_name(n)[:-5]},{w} 85 1 499 272 {w} 1 1 9 9")
LISTS = {
    "caffe": ("val.txt", lines_of(lambda n, i, w, k: f"{file_name(n)} {i}")),
    "mmpretrain": ("meta/val.txt", lines_of(lambda n, i, w, k: f"{file_name(n)} {i}")),
    "MLPerf": ("val_map.txt", lines_of(lambda n, i, w, k: f"val/{file_name(n)} {i}")),
    "PaddleClas": ("val_list.txt", lines_of(lambda n, i, w, k: f"val/{file_name(n)[:-4]}jpeg {i}")),
    "beside the pictures": ("val/val.txt", lines_of(lambda n, i, w, k: f"{file_name(n)}\t{w}\r")),
    "in folders": ("val.txt", lines_of(lambda n, i, w, k: f"{w}/{file_name(n)} {w}")),
    "Kaggle": ("LOC_val_solution.csv", KAGGLE),
    "TensorFlow": ("imagenet_2012_validation_synset_labels.txt", lines_of(lambda n, i, w, k: w)),
    "development kit": ("ILSVRC2012_validation_ground_truth.txt", lines_of(lambda n, i, w, k: f"{k}")),
    "its folder": (
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", lines_of(lambda n, i, w, k: f"{k}"),
    ),
    # what people make of it, each one read as 0.1 % top-1 by those who take it for caffe's: timm#1081, mmpretrain#11
    "kit from 0": ("val.txt", lines_of(lambda n, i, w, k: f"{file_name(n)} {k - 1}")),
    "kit from 1": ("val.txt", lines_of(lambda n, i, w, k: f"{file_name(n)} {k}")),
    "with a background": ("val.txt", lines_of(lambda n, i, w, k: f"{file_name(n)} {i + 1}")),
    "backwards": ("val.txt", "".join(reversed(lines_of(lambda n, i, w, k: f"{file_name(n)} {i}\n").splitlines(True)))),
}  # fmt: skip


@pytest.mark.parametrize("kind", LISTS)
def test_a_flat_set_with_anybodys_list(tmp_path: Path, kind: str) -> None:
    name, text = LISTS[kind]
    write_flat(tmp_path / "val")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    found = imagenet(tmp_path)
    assert classes_of(found) == INDICES
    assert found.name_of(2) == "val/ILSVRC2012_val_00000003.JPEG"


def test_each_1000th_picture_tells_the_order_too(tmp_path: Path) -> None:
    """Typed from the development kit's ground truth; caffe's val.txt says the same in its own numbers."""
    kit = [
        301,
        193,
        138,
        844,
        641,
        880,
        970,
        158,
        495,
        850,
        34,
        40,
        666,
        47,
        693,
        55,
        660,
        475,
        860,
        104,
        107,
        129,
        690,
    ]
    kit += [8, 961, 49, 591, 290, 381, 417, 539, 180, 14, 485, 312, 988, 755, 576, 279, 403, 173, 425, 287, 4, 236, 466]
    kit += [493, 735, 443, 186]
    write_flat(tmp_path / "val", range(1000, 50_001, 1000))
    (tmp_path / "val.txt").write_text("".join(f"{file_name(1000 * n)} {k}\n" for n, k in enumerate(kit, 1)))
    found = imagenet(tmp_path)
    assert [table_rows("imagenet")[index]["ilsvrc"] for index in classes_of(found)] == kit
    assert (classes_of(found)[1], classes_of(found)[-1]) == (149, 355)
    write_jpeg(tmp_path / "val" / file_name(1001))
    with (tmp_path / "val.txt").open("a") as file:
        file.write(f"{file_name(1001)} 1\n")
    assert found.classes[classes_of(imagenet(tmp_path))[1]] == "kit fox"


def test_a_part_of_the_pictures_with_the_whole_list(tmp_path: Path) -> None:
    write_flat(tmp_path / "ILSVRC2012_img_val", (3, 7, 11))
    (tmp_path / "val.txt").write_text(LISTS["caffe"][1])
    for root in (tmp_path, tmp_path / "ILSVRC2012_img_val"):
        assert classes_of(imagenet(root)) == [230, 334, 109]


def refused(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "val.txt").write_text(text)


SNAKE = (
    "ILSVRC2012_val_00000001, which is a sea snake: n01751748, 65 among the sorted WNIDs and 490 in the development kit"
)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        # ILSVRC/ImageSets/CLS-LOC/val.txt counts the pictures
        (refused(lines_of(lambda n, i, w, k: f"{file_name(n)[:-5]} {n}")), f"val.txt says 1 of {SNAKE}"),
        (refused(lines_of(lambda n, i, w, k: f"{file_name(n)} {i + 2}")), f"val.txt says 67 of {SNAKE}"),
        (refused(LISTS["caffe"][1].replace(" 809", " 810")), r"val.txt says 65 of .*0001"),
        (refused(LISTS["TensorFlow"][1].replace("n01751748", "n01440764")), f"val.txt says n01440764 of {SNAKE}"),
        (refused("".join(f"{file_name(n)} {n}\n" for n in range(11, 20))), "numbers say nothing without the order"),
        (refused("".join(f"{file_name(n)} {n}\n" for n in range(1, 2000))), "says 1001 of ILSVRC2012_val_00001001"),
        (refused(LISTS["caffe"][1].replace("JPEG 970", "JPEG n09193705")), r"of ILSVRC2012_val_0000000\d; give all"),
        (refused(f"{file_name(1)} n00000000\n"), "says n00000000 of ILSVRC2012_val_00000001; give all classes as"),
        (refused(f"{file_name(1)} snake\n"), 'line 1 is "ILSVRC2012_val_00000001.JPEG snake"; a line is FILE CLASS'),
        (refused("\n"), r"val.txt: no lines in it; ImageNet is"),
        (lambda f: (f / "val.txt").write_bytes(b"\xff\xfe\x00"), r"val.txt: not a list of classes \("),
        (refused("".join(LISTS["caffe"][1].splitlines(True)[:10])), r"no class for 2 of 12 pictures, .*00000011.JPEG;"),
        (lambda f: write_jpeg(f / "val" / "cat.JPEG"), "no class for 1 of 13 pictures, the first is .*cat.JPEG"),
        (lambda f: (f / "val.txt").unlink(), "in no folders of classes, and there is no list of those; ImageNet is"),
        (lambda f: (f / "val" / "n01440764").mkdir(), "has folders and 12 pictures beside them, such as ILSVRC2012"),
        (lambda f: (f / "val").rename(f / "pictures"), "has no folder val or validation or ILSVRC2012_img_val"),
    ],
)  # fmt: skip
def test_what_would_be_silently_wrong_is_refused(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    write_flat(tmp_path / "val")
    (tmp_path / "val.txt").write_text(LISTS["caffe"][1])
    damage(tmp_path)
    with pytest.raises(HiresvitError, match=words) as caught:
        len(imagenet(tmp_path))
    assert "\n" not in str(caught.value)


def test_folders_that_are_filled_in_a_wrong_order_are_seen_by_their_pictures(tmp_path: Path) -> None:
    """Somebody takes the kit's ids for places among the sorted WNIDs, and picture 1 becomes a pelican."""
    wnids = [row["wnid"] for row in table_rows("imagenet")]
    wrong = {wnids[kit - 1]: [file_name(number)] for number, (_, _, kit) in enumerate(FIRST, 1)}
    write_imagenet_folders(tmp_path / "val", wrong)
    with pytest.raises(HiresvitError, match=f"val says {wnids[489]} of {SNAKE}; the classes are another set's or in a"):
        len(imagenet(tmp_path))


@pytest.mark.parametrize("name", ["tench", "0", "n99999999"])
def test_folders_that_are_no_classes_are_named(tmp_path: Path, name: str) -> None:
    write_imagenet_folders(tmp_path / "val", {"n01440764": ["a.JPEG"], name: ["b.JPEG"]})
    with pytest.raises(
        HiresvitError, match=rf"val/{name} is called as no class of ImageNet-1k, as n01440764 is; Image"
    ):
        len(imagenet(tmp_path))
    for path in tmp_path.rglob("*.JPEG"):
        path.unlink()
    (tmp_path / "val" / name).rmdir()
    with pytest.raises(HiresvitError, match=r"val: no WNID/\*\.JPEG in it; ImageNet is"):
        len(imagenet(tmp_path))


def test_a_folder_of_training_pictures_is_not_taken_for_the_validation_set(tmp_path: Path) -> None:
    write_imagenet_folders(tmp_path / "train", {"n01440764": ["n01440764_10026.JPEG"]})
    with pytest.raises(HiresvitError, match="train has no folder val or validation"):
        imagenet(tmp_path / "train")
    with pytest.raises(UsageError, match="--split test: no split of imagenet is called so; there is val, train"):
        imagenet(tmp_path, "test")


def test_its_odd_files_are_pictures_like_others(tmp_path: Path) -> None:
    """22 JPEGs of the training set have four inks, one is a PNG, hundreds are grey; the authors' loaders turn none."""
    folder = tmp_path / "val" / "n02105855"
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:, :8] = (0, 255, 255, 0)  # red
    ink[:, 8:] = (255, 0, 0, 128)  # a dark cyan
    save(folder / "a_cmyk.JPEG", Image.fromarray(ink, "CMYK"), format="JPEG", quality=95)
    (folder / "b_ycck.JPEG").write_bytes((GOLDEN / "ycck.jpg").read_bytes())
    save(folder / "n02105855_2933.JPEG", Image.fromarray(photo(3)).convert("RGBA"), format="PNG")
    save(folder / "n02105855_3000.JPEG", np.full((5, 7), 90, np.uint8), format="JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "n02105855_4000.JPEG", photo(4), format="JPEG", exif=exif)
    found = imagenet(tmp_path)
    red, cyan = found[0].image[8, 3], found[0].image[8, 12]
    # of JPEG's rounding; taken for plain and not for Adobe's inverted ink both would be black
    np.testing.assert_allclose([red, cyan], [(255, 0, 0), (0, 127, 127)], atol=3)
    np.testing.assert_allclose(found[1].image[8, [3, 12]], [(200, 30, 60), (20, 160, 240)], atol=3)
    np.testing.assert_array_equal(found[2].image, photo(3))
    assert (found[3].image == 90).all()
    assert found[4].image.shape == (6, 9, 3)
    assert load_image(folder / "n02105855_4000.JPEG").shape == (9, 6, 3)


def test_damaged_pictures_are_named_when_their_turn_comes(tmp_path: Path) -> None:
    write_imagenet_folders(tmp_path / "val", {"n01440764": ["a.JPEG", "b.JPEG"]})
    (tmp_path / "val" / "n01440764" / "b.JPEG").write_bytes(b"\xff\xd8\xff\xe0 cut")
    found = imagenet(tmp_path)
    assert found[0].labels == 0
    with pytest.raises(HiresvitError, match=r"val/n01440764/b\.JPEG: not a readable image"):
        found[1]


def test_a_network_with_a_background_is_refused(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    for classes in (1000, 1001, 21843):
        spec = ModelSpec("toy", "toy", "classify", (8, 8), classes, PreprocessSpec())
        if classes == 1000:
            check_fit(spec, imagenet(tmp_path))
            continue
        with pytest.raises(UsageError, match=f"toy answers {classes} classes, imagenet val has 1000; give a network"):
            check_fit(spec, imagenet(tmp_path))
