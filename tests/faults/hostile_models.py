"""Configurations of models that would run code, read files or fill the memory, if they were let."""

import base64
import json
import marshal

from faults.file_mutations import archive, changed, members, nested


def attacks(canary):
    """Serialized objects, each of which would leave the canary behind or read another's file."""
    code = compile(f"open({str(canary)!r}, 'w').close()", "attack", "exec")
    source = f"lambda x: (open({str(canary)!r}, 'w').close(), x)[1]"
    function = eval(compile(source, "attack", "eval"))
    dump = base64.b64encode(marshal.dumps(function.__code__)).decode()
    marshaled = {
        "class_name": "__lambda__",
        "config": {"code": dump, "defaults": None, "closure": None},
    }
    return [
        _lambda(marshaled),
        _lambda({"class_name": "__lambda__", "config": {"value": [dump, None, None]}}),
        _lambda([dump, None, None]),
        {**_lambda(marshaled), "safe_mode": False},
        marshaled,
        _lambda(_function("builtins", "exec"), arguments={"globals": {}}),
        _lambda(_function("os", "system"), arguments={"command": f"touch {canary}"}),
        _lambda(_function("keras.config", "enable_unsafe_deserialization")),
        _lambda(_function("keras.src.saving.serialization_lib", "enable_unsafe_deserialization")),
        _lambda(_function("keras.utils", "get_file"), arguments={"origin": f"file://{__file__}"}),
        _call("subprocess", "Popen", {"args": ["touch", str(canary)]}),
        _call("builtins", "open", {"file": str(canary), "mode": "w"}),
        _call("pathlib", "Path", {}),
        _call("faults.file_mutations", "Canary", {"path": str(canary)}),
        _call("pickle", "loads", {"data": repr(marshal.dumps(code))}),
        _layer("TFSMLayer", filepath=str(canary.parent), call_endpoint="serve"),
        _layer("TorchModuleWrapper", module=dump),
        _layer("JaxLayer", call_fn=_function("os", "getcwd")),
        _layer("StringLookup", vocabulary="/etc/passwd"),
        _layer("TextVectorization", vocabulary="/etc/passwd"),
        _layer("IntegerLookup", vocabulary="/etc/passwd", vocabulary_dtype="int64"),
    ]


def _function(module, name):
    """A function that is known by its name."""
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def _call(module, name, config):
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def _layer(name, **config):
    return _call("keras.layers", name, {"name": "attack", "trainable": True, **config})


def _lambda(function, **config):
    return _layer("Lambda", function=function, **{"arguments": {}, **config})


def attacking(random, contents, canary):
    """A model that holds an attack in one place or another."""
    found = attacks(canary)
    attack = found[random.integers(len(found))]
    parts = members(contents)
    model = json.loads(parts["config.json"])
    layers = model["config"]["layers"]
    dense = layers[1 + random.integers(len(layers) - 1)]["config"]
    place = random.integers(6)
    if place == 0:
        layers.insert(int(random.integers(1, len(layers) + 1)), attack)
    elif place == 1:
        layers.append(_layer("TimeDistributed", layer=attack))
    elif place == 2:
        layers.append({**model, "config": {**model["config"], "layers": [layers[0], attack]}})
    elif place == 3:
        dense[["kernel_initializer", "kernel_regularizer", "dtype"][random.integers(3)]] = attack
    elif place == 4:
        dense["activation"] = attack
    else:
        model = attack if random.integers(2) else {**model, "build_config": attack}
    parts["config.json"] = json.dumps(model).encode()
    return archive(parts.items())


def misconfigured(random, contents):
    """A model with values in its configuration that it cannot have."""
    parts = members(contents)
    name = ["config.json", "config.json", "metadata.json"][random.integers(3)]
    text = json.dumps(changed(random, json.loads(parts[name])))
    if random.random() < 0.1:
        deep = nested(int(random.integers(100_000)))
        text = [deep, nested(9000, '{"config":', "}"), text.replace("null", deep, 1)][
            random.integers(3)
        ]
    parts[name] = text.encode("utf-8", "surrogatepass")
    return archive(parts.items())
