"""Imports point one way, the code of bundles lies in `shared` alone, and configurations name what exists."""

import ast
import importlib
import inspect
import json
import re
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

ROOT = Path(__file__).parents[1]
SHARED = ROOT / "shared"
MODULES = sorted(path.relative_to(SHARED) for path in SHARED.rglob("*.py"))

# A room may import the rooms that it names here, and itself.
LEARNING = {"selection", "losses", "metrics", "networks"}
READING = {"geometry", "wsi", "writers", "data"}
MAPPING = READING | {"features", "inference", "front_door", "networks"}
TRAINING = MAPPING | {"handlers", "boosting", "engines", *LEARNING}
ALLOWED = {
    "geometry": set(),
    "wsi": {"geometry"},
    "writers": {"geometry", "wsi"},
    "data": READING - {"data"},
    "front_door": {"writers"},
    "handlers": {"writers"},
    "selection": set(),
    "losses": {"selection"},
    "metrics": set(),
    "networks": set(),
    "boosting": {"losses", "networks"},
    "encoders": {"networks"},
    "features": READING,
    "inference": MAPPING - {"inference"},
    "engines": TRAINING - {"engines", "inference"},
    "evaluation": TRAINING,
    "calibration": TRAINING | {"evaluation"},
    "sweeps": TRAINING - {"inference"},
    # Installed alone, it finds the others in the bundle that it is given.
    "python_api": set(),
    "synthetic": set(),
}
MOST_MODULES = 15
LONGEST_LINE = 130
LEARN_WITH = {"torch", "monai", "ignite", "numpy", "lazy_loader"}
# Boundaries are thinned and matched by these.
ALSO_WITH = {"metrics": {"scipy", "skimage"}}
VAGUE = {"util", "utils", "helper", "helpers", "common", "misc"}

# The mathematics of the papers is exported whether or not anything here uses it.
MATHEMATICS = {"losses", "metrics", "networks", "selection"}
STUBS = sorted(path.relative_to(ROOT) for path in SHARED.rglob("*.pyi"))
TEXTS = {".json", ".md", ".py", ".sh"}

# What may have a docstring.
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

BUNDLES = sorted(path.parent for path in (ROOT / "bundles").glob("*/configs"))
CONFIGS = sorted(path for path in (ROOT / "bundles").glob("*/configs/*.json") if path.stem != "metadata")
OVERLAYS = [path for path in CONFIGS if path.stem not in ("train", "inference", "evaluate")]
# Read by MONAI itself.
RESERVED = {"imports", "initialize", "run", "finalize", "bundle_root", "roots"}
OF_COMPONENTS = {"_disabled_", "_mode_", "_requires_"}


def identify(path):
    return str(path.relative_to(ROOT) if path.is_absolute() else path)


def imports_of(module):
    """(dots, module, names) of every import, also those inside functions: no dots for an absolute one."""
    for node in ast.walk(ast.parse((SHARED / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]


def parts_imported(module):
    """The rooms of `shared` that a module imports from."""
    depth = len(module.parts)
    for dots, name, names in imports_of(module):
        if dots == depth:  # from ..part import x, from .. import part
            yield from ([name.split(".")[0]] if name else names)


def test_every_room_has_its_place():
    assert {module.parts[0] for module in MODULES if len(module.parts) > 1} == set(ALLOWED)


@pytest.mark.parametrize("module", [module for module in MODULES if len(module.parts) > 1], ids=identify)
def test_imports_point_one_way(module):
    part = module.parts[0]
    imported = {name for name in parts_imported(module) if name not in (part, "__version__", "require_version")}
    assert imported <= ALLOWED[part], f"shared/{module} imports {', '.join(sorted(imported - ALLOWED[part]))}"


def test_tests_of_encoders_need_the_packages_of_encoders_alone():
    """They also run in the environment that `scripts/test.sh --encoders` makes, which has no more."""
    imported = {
        room
        for file in (ROOT / "tests/encoders").glob("*.py")
        for room in re.findall(r"^\s*from shared\.(\w+)", file.read_text(), re.MULTILINE)
    }
    assert imported <= {"encoders"} | ALLOWED["encoders"]


def test_the_allowed_directions_have_no_circle():
    order = []
    while len(order) < len(ALLOWED):
        free = [part for part, below in ALLOWED.items() if part not in order and below <= set(order)]
        assert free, f"a circle among {set(ALLOWED) - set(order)}"
        order += free


@pytest.mark.parametrize("module", [module for module in MODULES if module.parts[0] in LEARNING], ids=identify)
def test_what_learns_imports_torch_and_its_kind_alone(module):
    foreign = {name.split(".")[0] for dots, name, _ in imports_of(module) if not dots} - set(sys.stdlib_module_names)
    assert foreign <= LEARN_WITH | ALSO_WITH.get(module.parts[0], set())


@pytest.mark.parametrize("module", MODULES, ids=identify)
def test_what_bundles_run_imports_no_monai_label(module):
    """It belongs to the server alone, in `scripts/label_server`."""
    assert not [name for dots, name, _ in imports_of(module) if not dots and name.split(".")[0] == "monailabel"]


@pytest.mark.parametrize("folder", sorted({module.parent for module in MODULES}), ids=str)
def test_a_folder_can_be_taken_in_at_a_glance(folder):
    modules = [path.name for path in (SHARED / folder).glob("*.py") if path.name != "__init__.py"]
    assert len(modules) < MOST_MODULES, f"shared/{folder} has {len(modules)} modules: divide it by role"


# What these hold is a list: the commands themselves, and a module for each measurement and for each data set.
LISTS = {"scripts", "scripts/benchmarks", "scripts/preparation"}
FOLDERS_OF_SCRIPTS = sorted({str(path.parent.relative_to(ROOT)) for path in (ROOT / "scripts").rglob("*.py")})


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS_OF_SCRIPTS if folder not in LISTS])
def test_a_folder_of_scripts_can_be_taken_in_at_a_glance(folder):
    modules = [path.name for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"]
    assert len(modules) < MOST_MODULES, f"{folder} has {len(modules)} modules: divide it by role"


@pytest.mark.parametrize("folder", FOLDERS_OF_SCRIPTS)
def test_what_a_folder_of_scripts_holds_imports_one_way(folder):
    """Modules and folders alike: none is both above and below another."""
    package = folder.split("/")
    below = {path.stem: set() for path in (ROOT / folder).iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    for path in (ROOT / folder).rglob("*.py"):
        at = path.relative_to(ROOT).with_suffix("").parts
        for dots, name, names in imports_of(path):
            base = [*(at[:-dots] if dots else ()), *filter(None, name.split("."))]
            for imported in ([*base, part] for part in names or [""]):
                if imported[: len(package)] == package and len(imported) > len(package):
                    below[at[len(package)]] |= {imported[len(package)]} & below.keys() - {at[len(package)]}
    while free := {name for name, imported in below.items() if not imported}:
        below = {name: imported - free for name, imported in below.items() if name not in free}
    assert not below, f"a circle among {', '.join(sorted(below))}"


def test_modules_do_not_import_each_other_in_a_circle():
    """Rooms within a room have an order too."""
    known = {".".join(module.with_suffix("").parts) for module in MODULES}
    below = {name: set() for name in known}
    for module in MODULES:
        package = module.with_suffix("").parts[:-1]
        for dots, name, names in imports_of(module):
            base = ".".join([*package[: len(package) - dots + 1], *filter(None, name.split("."))]) if dots else ""
            below[".".join(module.with_suffix("").parts)] |= {base, *(f"{base}.{part}" for part in names)} & known
    while free := {name for name, imported in below.items() if not imported}:
        below = {name: imported - free for name, imported in below.items() if name not in free}
    assert not below, f"a circle among {', '.join(sorted(below))}"


def exported_by(stub):
    return [alias.name for node in ast.parse((ROOT / stub).read_text(encoding="utf-8")).body for alias in node.names]


@pytest.mark.parametrize("stub", STUBS, ids=str)
def test_a_package_loads_what_it_exports_only_when_asked(stub):
    package = ".".join(stub.parent.parts)
    exported = exported_by(stub)
    assert len(exported) == len(set(exported))
    # A module that is imported would stand in place of what it exports under its own name.
    assert not set(exported) & {path.stem for path in (ROOT / stub.parent).iterdir()}
    loaded = importlib.import_module(package)
    assert sorted(loaded.__all__) == sorted(exported)
    assert all(getattr(loaded, name) is not None for name in exported)


@pytest.fixture(scope="module")
def names_used():
    """Dotted names of `shared` that scripts, tests, configurations and documents import or mention."""
    files = [*ROOT.glob("*.md"), *SHARED.glob("*.md")]
    # rglob follows no links.
    files += [path for folder in ("scripts", "tests", "bundles") for path in (ROOT / folder).rglob("*")]
    used = set()
    for path in files:
        if path.suffix not in TEXTS or path.name == "CHANGELOG.md":
            continue
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r"\bshared(?:\.\w+)+", text))
        for package, names in re.findall(r"\bfrom (shared[.\w]*) import (\([^)]*\)|.+)", text):
            used |= {f"{package}.{name}" for name in re.findall(r"\w+", names)}
    return used


@pytest.mark.parametrize("stub", [stub for stub in STUBS if stub.parent.name not in MATHEMATICS], ids=str)
def test_what_a_package_exports_has_a_user(stub, names_used):
    """Modules of `shared` import from each other; an export is for those outside."""
    package = ".".join(stub.parent.parts)
    unused = [name for name in exported_by(stub) if f"{package}.{name}" not in names_used]
    assert not unused, f"nothing outside `shared` takes {', '.join(unused)} from {package}: delete the lines from {stub}"


@pytest.mark.parametrize("module", MODULES, ids=identify)
def test_imports_inside_shared_are_relative(module):
    """A bundle's own copy of `shared` must import itself, whatever lies on the path."""
    assert not [name for dots, name, _ in imports_of(module) if not dots and name.split(".")[0] in ("shared", "scripts", "tests")]


@pytest.mark.parametrize("folder", ["shared", "scripts", "tests"])
def test_no_file_has_a_name_that_says_nothing(folder):
    vague = [path for path in (ROOT / folder).rglob("*.py") if path.stem.removeprefix("test_").strip("_") in VAGUE]
    assert not vague


@pytest.mark.parametrize(
    "file", [path for folder in ("shared", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))], ids=identify
)
def test_no_code_knows_a_bundle_by_name(file):
    """What is true of one bundle alone it declares itself. Docstrings may have commands as examples."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documented = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, DOCUMENTED) and ast.get_docstring(node)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documented]
    names = {word for text in texts if isinstance(text, str) for word in re.findall(r"\w+", text)}
    assert not names & {bundle.name for bundle in BUNDLES}


@pytest.mark.parametrize("bundle", BUNDLES, ids=identify)
def test_a_bundle_holds_no_code_of_its_own(bundle):
    assert (bundle / "shared").resolve() == SHARED
    # rglob follows no links.
    assert not [path for path in bundle.rglob("*.py") if "shared" not in path.relative_to(bundle).parts]


@pytest.mark.parametrize("path", CONFIGS, ids=identify)
def test_a_configuration_is_read_without_scrolling_sideways(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    long = [number for number, line in enumerate(lines, start=1) if len(line) > LONGEST_LINE]
    assert not long, f"{identify(path)}: the lines {', '.join(map(str, long))} are longer than {LONGEST_LINE} characters"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def components(config, path=()):
    """(path, dictionary) of everything with a ``_target_``."""
    children = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    if isinstance(config, dict) and "_target_" in config:
        yield path, config
    for name, value in children:
        yield from components(value, (*path, str(name)))


def located(name):
    """What a dotted name stands for: the longest importable module, then attributes."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


def descriptions(config):
    """What is said of a configuration and of its items; long texts are lists of lines."""
    children = config.items() if isinstance(config, dict) else enumerate(config) if isinstance(config, list) else ()
    for name, value in children:
        if str(name).startswith("_desc_"):
            yield " ".join(value) if isinstance(value, list) else value
        else:
            yield from descriptions(value)


@pytest.mark.parametrize("path", CONFIGS, ids=identify)
def test_descriptions_are_sentences(path):
    texts = list(descriptions(read(path)))
    assert texts, "a configuration says what it is for"
    assert not [text for text in texts if not text[0].isupper() or text[-1] != "." or text.startswith("Of the ")]


def target_of(component, config):
    """The function or class behind a ``_target_``, through ``@`` references to callables of the same configuration."""
    name = component["_target_"]
    while name.startswith("@"):
        item = config[name[1:]]
        name = item if isinstance(item, str) else item["_target_"]
    return located(name)


def base_of(path):
    """What an overlay stands after: train.json, and the overlay that it names as ``_after_``; nothing for the three others."""
    if path not in OVERLAYS:
        return {}
    first = read(path).get("_after_")
    return read(path.parent / "train.json") | (read(path.with_name(f"{first}.json")) if first else {})


def changes_no_stages(path):
    """Whether an overlay is of more than the training, which has stages of its own, or keys that comparison.json alone sets."""
    return not {"run", "initialize"} & read(path).keys() and path.stem not in ("comparison", "from_viewer")


def arguments_of(component):
    """What MONAI passes on, which is all but names such as ``_desc_``: ``_desc_lr`` would be an argument."""
    return {name for name in component if not (name.startswith("_") and name.endswith("_"))}


@pytest.mark.parametrize("path", CONFIGS, ids=identify)
def test_a_configuration_says_what_it_is_for(path):
    assert read(path)["_desc_"]


@pytest.mark.parametrize("path", CONFIGS, ids=identify)
def test_every_target_exists_and_takes_its_arguments(path):
    config = read(path)
    # What an overlay refers to may be another's, whatever stands after what.
    together = {key: value for file in path.parent.glob("*.json") for key, value in read(file).items()}
    for place, component in components(config):
        target = target_of(component, together | base_of(path) | config)
        parameters = inspect.signature(target).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            continue
        unknown = arguments_of(component) - set(parameters)
        assert not unknown, f"{'::'.join(place)}: {component['_target_']} takes no {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("base", ["evaluate", "inference"])
@pytest.mark.parametrize("path", [path for path in OVERLAYS if changes_no_stages(path)], ids=identify)
def test_an_overlay_that_changes_no_stages_can_be_given_after_evaluation_and_inference(path, base):
    """MONAI refuses a key within what is not there: a comparison would fail after the training, when it makes the maps."""
    overlay, first = read(path), path.with_name(f"{base}.json")
    after = [path.with_name(f"{overlay['_after_']}.json")] if "_after_" in overlay else []
    parser = ConfigParser()
    parser.read_config([str(file) for file in (first, *after, path)])
    assert parser.get().keys() >= read(first).keys()


@pytest.mark.parametrize("path", OVERLAYS, ids=identify)
def test_every_key_of_an_overlay_has_something_to_replace(path):
    """MONAI takes a mistyped key for a new one and says nothing."""
    # An overlay stands after train.json, or after one of the other two.
    files = [path.parent / name for name in ("train.json", "evaluate.json", "inference.json")]
    base, overlay = {key: value for file in reversed(files) for key, value in read(file).items()} | base_of(path), read(path)
    text = "".join(file.read_text(encoding="utf-8") for file in path.parent.glob("*.json"))
    for key in overlay:
        if key.startswith("_") or key in RESERVED or key in base:
            continue
        if "::" not in key:
            is_used = re.search(rf"[@%]{re.escape(key)}\b", text) is not None
            assert is_used or key.startswith("run_"), f"{key} is not in train.json, and nothing refers to it"
            continue
        *parents, leaf = key.split("::")
        parent = base
        for name in parents:
            assert name in parent, f"{key}: there is no {name!r}"
            parent = parent[name]
        # An argument that train.json leaves at its default may be named too, and one of the component that takes its place.
        named = overlay.get("::".join([*parents, "_target_"]))
        component = parent if named is None else {"_target_": named}
        is_known = leaf in parent or leaf in OF_COMPONENTS or leaf in inspect.signature(target_of(component, base)).parameters
        assert is_known, f"{key}: there is no {leaf!r}"


@pytest.mark.parametrize("path", CONFIGS, ids=identify)
def test_every_reference_has_something_to_refer_to(path):
    config = read(path)
    # Overlays refer to what other overlays bring, and a stage may be there for one of them alone.
    others = path.parent.glob("*.json") if path in OVERLAYS else path.parent.glob("features.json")
    known = {key: value for file in others for key, value in read(file).items()} | base_of(path) | config
    for name in set(re.findall(r"[@%]([A-Za-z_]\w*(?:::\w+)*)", json.dumps(config))):
        item = known
        for part in name.split("::"):
            if part == "_meta_":
                item = read(path.parent / "metadata.json")
                continue
            assert part in item, f"@{name}: there is no {part!r}"
            item = item[part]
            if not isinstance(item, dict):
                break
