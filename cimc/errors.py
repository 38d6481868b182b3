"""Every diagnostic cimc can print: its code, exit code, message and what to do about it.

A diagnostic is declared once, here, as a constant; the place that finds the fault calls it with the
fields of its template and raises what it returns::

    raise errors.UNKNOWN_PRESET(name="isac", where="--hw", known="isaac, toy")

``docs/errors.md`` is generated from this table.
"""

from __future__ import annotations

from cimc.diagnostic import DIAGNOSTICS as DIAGNOSTICS
from cimc.diagnostic import CimcError as CimcError
from cimc.diagnostic import CimcErrors as CimcErrors
from cimc.diagnostic import Collector as Collector
from cimc.diagnostic import Diagnostic as Diagnostic
from cimc.diagnostic import Exit as Exit
from cimc.diagnostic import Source as Source
from cimc.diagnostic import did_you_mean as did_you_mean

# --- files and options -------------------------------------------------------------------------
FILE_NOT_FOUND = Diagnostic("file-not-found", Exit.USAGE, "{what} not found: {path}", "check the path")
FILE_UNREADABLE = Diagnostic("file-unreadable", Exit.USAGE, "{what} {path} cannot be read: {why}", "check the file")
OUTPUT_OCCUPIED = Diagnostic(
    "output-occupied",
    Exit.USAGE,
    "{path} is there already and is no folder that an earlier compile wrote",
    "choose another folder for -o, or remove it first",
)
NOT_COMPILED = Diagnostic(
    "not-compiled",
    Exit.USAGE,
    "{path} holds no compiled program: {why}",
    "give a folder that `cimc compile MODEL.onnx -o DIR` wrote, or a .cim file",
)
PRECISION = Diagnostic(
    "precision", Exit.USAGE, "precision '{given}' is not known: {why}", "use w8a8 (default), or w2a8 … w8a8"
)

# --- reports -----------------------------------------------------------------------------------
FILE_SYSTEM = Diagnostic("file-system", Exit.USAGE, "{path}: {why}", "check the path, and the disk it is on")
REPORT_UNWRITABLE = Diagnostic(
    "report-unwritable", Exit.USAGE, "{path} cannot be written: {why}", "name a file in a directory you may write to"
)
REPORT_FILE = Diagnostic(
    "report-file", Exit.USAGE, "{what} {path}: {why}", "`cimc {command}` writes this file; run it to get a good one"
)
UNKNOWN_LAYER = Diagnostic(
    "unknown-layer", Exit.USAGE, "no layer is named '{name}' in {path}", "{suggestion}known: {known}"
)
UNKNOWN_TILE = Diagnostic("unknown-tile", Exit.USAGE, "{path} has no tile {tile}", "its tiles are {known}")

# --- analog ------------------------------------------------------------------------------------
ARGUMENT = Diagnostic("argument", Exit.USAGE, "argument '{name}': {why}", "{fix}")
ANALOG_CONFIG = Diagnostic("analog-config", Exit.USAGE, "analog configuration, key '{key}': {why}", "{fix}")

# --- hardware ----------------------------------------------------------------------------------
UNKNOWN_HARDWARE = Diagnostic(
    "unknown-hardware",
    Exit.USAGE,
    "there is no hardware preset '{name}', and no file of that name",
    "{near}presets: {known}; or give the path of a hardware file (.yaml)",
)
HW_TOO_LARGE = Diagnostic(
    "hw-too-large", Exit.USAGE, "hardware file {path} has {size} bytes; at most {limit} are read", "check the path"
)
HW_YAML = Diagnostic(
    "hw-yaml", Exit.USAGE, "this is no hardware file: {why}", "the format is YAML 1.2; see docs/hardware.md"
)
HW_DUPLICATE_KEY = Diagnostic(
    "hw-duplicate-key", Exit.USAGE, "key '{key}' is given twice; first on line {first}", "remove one of the two"
)
HW_UNKNOWN_KEY = Diagnostic("hw-unknown-key", Exit.USAGE, "unknown key '{key}'", "{near}known here: {known}")
HW_MISSING_KEY = Diagnostic("hw-missing-key", Exit.USAGE, "key '{key}' is missing", "add it; see docs/hardware.md")
HW_VALUE = Diagnostic("hw-value", Exit.USAGE, "key '{key}': {why}", "see docs/hardware.md for what the key means")
HW_OVERRIDE = Diagnostic("hw-override", Exit.USAGE, "override '{key}': {why}", "{fix}")

# --- programs ----------------------------------------------------------------------------------
PROGRAM_SYNTAX = Diagnostic("program-syntax", Exit.USAGE, "{what}", "{hint}")
PROGRAM_LIMIT = Diagnostic(
    "program-limit",
    Exit.USAGE,
    "{what}: {value}, and {limit} is the limit",
    "the limits of a program are in isa/SPEC.md, section 2",
)
PROGRAM_VERSION = Diagnostic(
    "program-version", Exit.USAGE, "{what}", "the first line of a program is '.cim 1', the version of its text"
)
PROGRAM_ORDER = Diagnostic("program-order", Exit.USAGE, "{what}", "{hint}")
UNKNOWN_NAME = Diagnostic("unknown-name", Exit.USAGE, "{where}no {kind} is called '{name}'", "{hint}")
DUPLICATE_NAME = Diagnostic(
    "duplicate-name", Exit.USAGE, "{where}{kind} '{name}' is declared twice", "give each {kind} a name of its own"
)
UNKNOWN_INSTRUCTION = Diagnostic(
    "unknown-instruction",
    Exit.USAGE,
    "{where}no instruction is called '{name}'",
    "{hint}isa/INSTRUCTIONS.md lists them",
)
WRONG_OPERANDS = Diagnostic("wrong-operands", Exit.USAGE, "{where}{what}", "{usage}")
WRONG_DECLARATION = Diagnostic("wrong-declaration", Exit.USAGE, "{where}{what}", "{hint}")
OUT_OF_BUFFER = Diagnostic(
    "out-of-buffer",
    Exit.USAGE,
    "{where}{name} reaches elements {low} to {high}, and the buffer holds 0 to {last}",
    "over all values of repeat variables and params; offsets and strides count elements",
)
EMPTY_VIEW = Diagnostic(
    "empty-view", Exit.USAGE, "{where}an extent of {name} can be {low}", "extents are {least} at least, for every param"
)
BUFFERS_OVERLAP = Diagnostic(
    "buffers-overlap",
    Exit.USAGE,
    "{where}buffers '{a}' and '{b}' share bytes {low} to {high} of the local memory while both are in use",
    "'{a}' lives over steps {a_life}, '{b}' over steps {b_life}: move one, or use them one after the other",
)
RESIDENT_OVERLAP = Diagnostic(
    "resident-overlap",
    Exit.USAGE,
    "{where}'{a}' and '{b}' share bytes {low} to {high} of the local memory of tile {tile}",
    "a global buffer with a tile is in use for the whole run: give it bytes of its own",
)
PROGRAM_TOO_BIG = Diagnostic(
    "program-too-big", Exit.DOES_NOT_FIT, "{where}{what}: {need} needed, {have} there", "{hint}"
)
NO_SUCH_UNIT = Diagnostic(
    "no-such-unit", Exit.USAGE, "{where}{mnemonic} needs a {unit} unit, and tile {at} ({kind}) has none", "{hint}"
)
NO_ADDERS = Diagnostic(
    "no-adders",
    Exit.USAGE,
    "{where}{mnemonic} needs routers that add, and those of {chip} do not",
    "give them adders (-c 'noc.reduce={{lanes: 8, cycles: 1}}'), or compile with -m sums=one or sums=tree",
)
UNPAIRED = Diagnostic("unpaired", Exit.USAGE, "{where}{what}", "{hint}")
NO_HALT = Diagnostic(
    "no-halt", Exit.USAGE, "{where}{what}", "'halt' is the last instruction of every tile, and only that"
)
WRONG_WEIGHTS = Diagnostic(
    "wrong-weights", Exit.USAGE, "{where}{what}", "give the weights file the program was written with"
)

# --- models ------------------------------------------------------------------------------------
MODEL_NOT_ONNX = Diagnostic(
    "model-not-onnx", Exit.USAGE, "{path} is not an ONNX model: {why}", "export the model again, or check the download"
)
MODEL_TOO_LARGE = Diagnostic(
    "model-too-large", Exit.USAGE, "model {path}: {what} is {size}, more than the limit of {limit}", "{fix}"
)
MODEL_MALFORMED = Diagnostic(
    "model-malformed", Exit.USAGE, "model {path}, {where}: {why}", "export the model again; the file contradicts itself"
)
MODEL_EXTERNAL = Diagnostic(
    "model-external-data",
    Exit.USAGE,
    "model {path}, tensor '{tensor}': external data '{location}' {why}",
    "keep the data files beside the model, as the exporter wrote them",
)
MODEL_OP = Diagnostic(
    "model-unsupported", Exit.USAGE, "node '{node}' ({op}) is not supported: {why}", "docs/ops.md lists what is"
)
MODEL_NODE = Diagnostic(
    "model-node",
    Exit.USAGE,
    "node '{node}' ({op}) cannot be: {why}",
    "check the model and the bound dimensions (--dim NAME=INT binds another size): {dims}",
)
MODEL_INPUT = Diagnostic("model-input", Exit.USAGE, "model {path}, input '{name}': {why}", "{fix}")
MODEL_DIM_UNKNOWN = Diagnostic(
    "model-dim-unknown",
    Exit.USAGE,
    "--dim {name}: the model has no dimension of that name",
    "{meant}its symbolic dimensions: {known}",
)
MODEL_DIM_VALUE = Diagnostic(
    "model-dim-value", Exit.USAGE, "dimension '{name}' = {value}: {why}", "bind it to a number from 0 to {limit}"
)
MODEL_DIM_CONFLICT = Diagnostic(
    "model-dim-conflict",
    Exit.USAGE,
    "dimension '{name}' is {first} by {first_from} but {second} by {second_from}",
    "give inputs whose shapes agree, or leave out --dim {name}",
)

# --- mapping -----------------------------------------------------------------------------------
NO_CORES = Diagnostic(
    "no-cores",
    Exit.DOES_NOT_FIT,
    "no tile kind of {chip} has cores, so nothing can hold weights",
    "give a tile kind `cores` and a `core`; see docs/hardware.md",
)
PIPELINE_SHORT = Diagnostic(
    "pipeline-short",
    Exit.USAGE,
    "the pipeline ends at level {level}; a program is made from level partitioned",
    "end the pipeline with quantize,partition, or use --stop-after to look at the graph",
)
MAPPING_CHOICE = Diagnostic("mapping-choice", Exit.USAGE, "--mapping {text}: {why}", "{fix}")
SWEEP = Diagnostic("sweep", Exit.USAGE, "--vary {text}: {why}", "{fix}")
ATTENTION = Diagnostic("attention", Exit.USAGE, "--attention {text}: {why}", "{fix}")
LENGTHS = Diagnostic("lengths", Exit.USAGE, "no one program serves {name} = {low}..{high}: {why}", "{fix}")
CACHE = Diagnostic("cache", Exit.USAGE, "--cache {how}: {why}", "{fix}")
CACHE_ROOM = Diagnostic("cache-room", Exit.DOES_NOT_FIT, "the KV caches do not fit {chip}: {why}", "{fix}")
ATTENTION_CELLS = Diagnostic(
    "attention-cells",
    Exit.DOES_NOT_FIT,
    "attention's operands cannot be written into {cells} cells of {chip}: {why}",
    "{fix}",
)
DOES_NOT_FIT = Diagnostic(
    "does-not-fit",
    Exit.DOES_NOT_FIT,
    "the model needs {need} cores of {block} weights, {chip} has {have}: {short} short",
    "{fix}",
)
RELOAD_TOO_LARGE = Diagnostic(
    "reload-too-large",
    Exit.DOES_NOT_FIT,
    "--reload: {layer} alone needs {need} cores at the same time, {chip} has {have}",
    "write split{{cores={have}}} at the end of a pipeline of your own (-p), as the usual one has it; or put the model on several "
    "chips (--chips auto), or keep that layer out of the cells (--digital)",
)
RELOAD_BUFFER = Diagnostic(
    "reload-buffer",
    Exit.DOES_NOT_FIT,
    "--reload: tile {tile} ({kind}) of {chip}: a row of weights of {layer} takes {need} bytes, the local buffer has {have} "
    "left for it",
    "enlarge local_bytes of that tile kind, or put the model on several chips (--chips auto)",
)
STREAM_ROOM = Diagnostic(
    "stream-room",
    Exit.DOES_NOT_FIT,
    "--optimize throughput: tile {tile} ({kind}) of {chip} needs {need} bytes for the samples under way, the local buffer has "
    "{have}",
    "map layer by layer (--optimize latency), enlarge local_bytes of that tile kind (-c tiles.{kind}.local_bytes=…) or take "
    "a floorplan with more such tiles (-c layout=…)",
)
RELOAD_HARDWARE = Diagnostic(
    "reload-hardware",
    Exit.USAGE,
    "--reload: {chip} has no {what} in its hardware file, so what writing its cells takes is not known",
    "give it with its source, or put the model on several chips (--chips auto)",
)
BUFFER_TOO_SMALL = Diagnostic(
    "buffer-too-small",
    Exit.DOES_NOT_FIT,
    "tile {tile} ({kind}) of {chip}: a row block of {layer} and its constants need {need} bytes, the local buffer has {have}",
    "enlarge local_bytes of that tile kind (-c tiles.{kind}.local_bytes=…), or bind a smaller sequence (--dim)",
)
UNIT_MISSING = Diagnostic(
    "unit-missing",
    Exit.DOES_NOT_FIT,
    "no tile of {chip} has all of the units the model needs together: {units}",
    "{fix}",
)
PLACEMENT = Diagnostic("placement", Exit.USAGE, "placement {path}: {why}", "{fix}")
ROWS_TOO_MANY = Diagnostic(
    "rows-too-many",
    Exit.DOES_NOT_FIT,
    "the placement asks for blocks of {rows} rows in segment {segment}: tile {tile} needs {need} bytes for them and has {have}",
    "ask for fewer rows, leave `rows` out to let the compiler choose, or enlarge local_bytes of the tile kind",
)
RESIDENT_ROOM = Diagnostic(
    "resident-room",
    Exit.DOES_NOT_FIT,
    "the placement keeps a value of {need} bytes in tile {tile}, which has {left} of {have} bytes left",
    "choose another tile, null for global memory, or leave the value out to let the compiler choose",
)
SEARCH = Diagnostic("search-option", Exit.USAGE, "--search {text}: {why}", "{fix}")

# --- running -----------------------------------------------------------------------------------
MEMORY = Diagnostic(
    "memory",
    Exit.DOES_NOT_FIT,
    "this machine has not enough memory",
    "bind smaller dims (--dim) or run with --no-values",
)
OUTPUT_UNKNOWN = Diagnostic(
    "output-unknown", Exit.USAGE, "the program has no output '{name}'", "{near}its outputs: {known}"
)
REFERENCE = Diagnostic(
    "reference",
    Exit.USAGE,
    "onnxruntime cannot run {model}: {why}",
    "check the model with onnxruntime alone; `cimc run` needs no reference",
)
REDUCE_PASSES = Diagnostic(
    "reduce-passes",
    Exit.USAGE,
    "{model} does not fail `cimc check` with these options: there is nothing to reduce",
    "give the inputs, numerics, seed and tolerances with which it fails",
)
REDUCE_VANISHES = Diagnostic(
    "reduce-vanishes",
    Exit.USAGE,
    "{model} fails ({why}), but not with its symbolic dims bound to the inputs' shapes",
    "bind the dims (--dim) or give --inputs with which it fails",
)
INPUT_MISSING = Diagnostic("input-missing", Exit.USAGE, "input '{name}' is missing", "the program's inputs: {known}")
INPUT_UNKNOWN = Diagnostic("input-unknown", Exit.USAGE, "there is no input '{name}'", "{near}the inputs: {known}")
INPUT_MISMATCH = Diagnostic(
    "input-mismatch", Exit.USAGE, "input '{name}' is {got}, the program takes {want}", "convert it, or compile for it"
)
PARAM_MISSING = Diagnostic(
    "param-missing", Exit.USAGE, "runtime parameter '{name}' has no value", "give one between {low} and {high}"
)
PARAM_RANGE = Diagnostic(
    "param-range", Exit.USAGE, "runtime parameter '{name}' = {value} is outside {low}..{high}", "give a value inside"
)
PARAM_UNKNOWN = Diagnostic(
    "param-unknown", Exit.USAGE, "the program has no runtime parameter '{name}'", "{near}its parameters: {known}"
)
STATE_SHORT = Diagnostic(
    "state-short",
    Exit.USAGE,
    "input '{name}' is missing, and tiles hold {have} of its {want} elements",
    "give it, or run the steps before it in this session",
)
STATE_MISMATCH = Diagnostic(
    "state-mismatch", Exit.USAGE, "state '{name}' is {got}, the program keeps {want}", "start from an empty state"
)
WEIGHT_MISSING = Diagnostic(
    "weight-missing",
    Exit.USAGE,
    "the weights have no '{key}', which {what} needs",
    "use the program's own weights file",
)
WEIGHT_MISMATCH = Diagnostic(
    "weight-mismatch",
    Exit.USAGE,
    "weights '{key}' are {got}, {what} needs {want}",
    "use the program's own weights file",
)
MEMORY_EXCEEDED = Diagnostic(
    "memory-exceeded",
    Exit.DOES_NOT_FIT,
    "{what} takes {need} bytes, {have} are there",
    "use hardware with more memory, or a smaller program",
)
INSTRUCTION_FAILED = Diagnostic("instruction-failed", Exit.PROGRAM_FAILED, "{where}: {why}", "the instruction: {text}")
NOT_FINITE = Diagnostic(
    "not-finite",
    Exit.PROGRAM_FAILED,
    "{where}: the activations to quantise hold {what}",
    "run with float numerics to see whether the model itself overflows; with --values f16 what is above 65504 does, and --values"
    " bf16 has the range of f32; the instruction: {text}",
)
DEADLOCK = Diagnostic(
    "deadlock", Exit.PROGRAM_FAILED, "deadlock: {count} of {tiles} tiles wait for ever\n{report}", "{fix}"
)
HOST_CALL = Diagnostic("host-call", Exit.USAGE, "host call '{call}' cannot run: {why}", "{fix}")
TIMING_TOO_LARGE = Diagnostic(
    "timing-too-large",
    Exit.DOES_NOT_FIT,
    "{what} needs {need} entries in the timing engine, {have} are allowed",
    "use fewer iterations of the loop, or run with --no-timing",
)

# --- passes ------------------------------------------------------------------------------------
GRAPH_INPUT = Diagnostic(
    "graph-input", Exit.USAGE, "input '{name}' of {graph}: {why}", "give an array of type {type} under that name"
)
HOST_NODE = Diagnostic(
    "host-node",
    Exit.USAGE,
    "an operator left to the host controller cannot be run: {why}",
    "check the model with onnxruntime",
)
PASS_OPTION = Diagnostic("pass-option", Exit.USAGE, "option {option} of pass {name}: {why}", "{fix}")
WEIGHT_NOT_FINITE = Diagnostic(
    "weight-not-finite",
    Exit.USAGE,
    "weights {weight} of layer {layer} hold {count} values that are infinite or not a number",
    "such weights cannot be quantised; check how the model was exported",
)
CALIBRATION = Diagnostic(
    "calibration",
    Exit.USAGE,
    "scales or weights cannot be fitted to calibration inputs: {why}",
    "give calibration inputs for which the model's values are finite, or leave out what is fitted to them",
)
IR_SYNTAX = Diagnostic(
    "ir-syntax", Exit.USAGE, "expected {expected}", "the head of cimc/ir/text.py shows how graphs are written"
)
IR_LAW = Diagnostic(
    "ir-law", Exit.USAGE, "{path}: this graph cannot be: {why}", "cimc.ir.levels says what holds at each level"
)
PASS_UNKNOWN = Diagnostic("pass-unknown", Exit.USAGE, "{where}: there is no pass '{name}'", "{meant}there are {known}")
PIPELINE_SYNTAX = Diagnostic(
    "pipeline-syntax",
    Exit.USAGE,
    "expected {expected}",
    "a pipeline reads like fold,fuse,partition{{rows=128, cols=128}}",
)
PASS_LEVEL = Diagnostic(
    "pass-level",
    Exit.USAGE,
    "pass {name} takes a graph at level {takes}, but this one is {level}",
    "put the passes in another order; --print-pipeline prints the usual one",
)
