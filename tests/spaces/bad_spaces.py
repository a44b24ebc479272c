"""Spaces with one mistake each: (name, YAML text, what the message has to say)."""

_HEAD = "name: s\nbudget: {trials: 4}\n"
_LR = "axes: {optim.lr: {float: [1e-3, 1e-1], log: true}}\n"
_GOOD = _HEAD + _LR
_TCPA = _HEAD + "base: {methods: [tcpa]}\n"
_ONE = "name: a\nbase: {methods: [cvpt]}\nablation:\n  design: one_factor\n"
_COMP = "name: a\nbase: {methods: [tcpa]}\nablation:\n  design: components\n"


def _axis(spec: str, path: str = "optim.lr") -> str:
    return f"{_HEAD}axes:\n  {path}: {spec}\n"


BAD_SPACES: list[tuple[str, str, str]] = [
    # YAML itself
    ("empty", "", r"must be a mapping .* it is empty"),
    ("comment_only", "# nothing\n", r"it is empty"),
    ("root_list", "- a\n- b\n", r"must be a mapping .* it is a list"),
    ("root_text", "hello\n", r"it is a str"),
    ("unclosed", "name: s\naxes: {optim.lr: [1, 2\n", r"line 3, column 1: YAML cannot be read"),
    ("tab", "name: s\nbase:\n\toptim.lr: 1\n", r"line 3, column 1: YAML cannot be read"),
    ("two_documents", "name: s\n---\nname: t\n", r"line 2, column 1: YAML cannot be read"),
    ("control_character", "name: s\x07\n", r"character .* is not allowed"),
    ("duplicate_key", "name: s\nname: t\n", r"line 2: key 'name' stands twice \(first: .*line 1\)"),
    (
        "duplicate_axis",
        _HEAD + "axes:\n  optim.lr: {choice: [1.0]}\n  optim.lr: {choice: [2.0]}\n",
        r"line 5: key 'optim.lr' stands twice",
    ),
    ("alias", "name: &n s\nbase: {data.root: *n}\n", r"line 2: alias \*n is not supported"),
    (
        "billion_laughs",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nname: *c\n",
        r"line 2: alias \*a is not supported",
    ),
    ("deep", "name: " + "[" * 500 + "]" * 500 + "\n", r"nested more than 20 levels"),
    ("python_tag", "name: !!python/name:os.system x\n", r"tag '.*os.system' is not supported"),
    ("binary_tag", "name: !!binary aGk=\n", r"is not supported; remove it"),
    ("set_tag", "name: !!set {a, b}\n", r"tag .*set' is not supported"),
    ("wrong_int_tag", "name: !!int x\n", r"'x' is not of type int"),
    ("list_as_key", "? [a, b]\n: 1\n", r"line 1: a key must be text"),
    # root keys
    ("no_name", "budget: {trials: 4}\n" + _LR, r"name must be 1 to 64 .* got None"),
    ("name_upper", _GOOD.replace("name: s", "name: My Study"), r"got 'My Study' \(.*line 1\)"),
    ("name_long", _GOOD.replace("name: s", "name: " + "x" * 65), r"name must be 1 to 64"),
    ("name_path", _GOOD.replace("name: s", "name: ../up"), r"got '\.\./up'"),
    ("name_number", _GOOD.replace("name: s", "name: 12"), r"name must be .* got 12"),
    ("unknown_key", _GOOD + "sampler_name: tpe\n", r"no key 'sampler_name' .*closest .*'sampler'"),
    ("no_axes", _HEAD, r"a search needs axes"),
    # base
    ("base_list", _GOOD + "base: [1]\n", r"base must be a mapping of settings, got \[1\]"),
    ("unknown_setting", _GOOD + "base: {optim.lrr: 1}\n", r"'optim.lrr' .*line 4.*'optim.lr'"),
    ("unknown_section", _GOOD + "base: {optimizer.lr: 1}\n", r"no setting 'optimizer.lr'"),
    ("nested_unknown", _GOOD + "base: {train: {epoch: 1}}\n", r"closest name: 'train.epochs'"),
    (
        "dotted_and_nested",
        _GOOD + "base:\n  train.epochs: 3\n  train: {epochs: 4}\n",
        r"train.epochs is given twice \(.*line 6; first: .*line 5\)",
    ),
    ("seed_in_base", _GOOD + "base: {seed: 3}\n", r"seed is a replicate"),
    ("wrong_type", _GOOD + "base: {train.epochs: ten}\n", r"train.epochs must .*got 'ten' \(.*4\)"),
    ("float_for_int", _GOOD + "base: {train.epochs: 2.5}\n", r"train.epochs must be .* got 2.5"),
    ("out_of_range", _GOOD + "base: {train.epochs: 0}\n", r"train.epochs must be .* got 0"),
    ("bool_word", _GOOD + "base: {data.flip: yes}\n", r"data.flip must be .*boolean, got 'yes'"),
    ("not_finite", _GOOD + "base: {optim.weight_decay: 1e999}\n", r"must be a finite number"),
    ("nan_word", _GOOD + "base: {optim.weight_decay: .nan}\n", r"weight_decay must .*got '.nan'"),
    ("unknown_option", _GOOD + "base: {optim.name: adam}\n", r"'adamw' or 'sgd', got 'adam'"),
    ("near_option", _GOOD + "base: {optim.name: adamww}\n", r"closest name: 'adamw'"),
    ("methods_text", _GOOD + "base: {methods: tcpa}\n", r"got 'tcpa' .*; write \[tcpa\]"),
    ("unknown_method", _GOOD + "base: {methods: [tpca]}\n", r"no method 'tpca' .*'tcpa'"),
    ("no_method", _GOOD + "base: {methods: []}\n", r"methods .*at least 1"),
    ("method_twice", _GOOD + "base: {methods: [vpt, vpt]}\n", r"names one method twice"),
    ("unknown_data", _GOOD + "base: {data.name: digitz}\n", r"no data set 'digitz' .*'digits'"),
    ("idle_setting", _GOOD + "base: {tcpa.prompt_length: 2}\n", r"'tcpa', which is never chosen"),
    ("contradiction", _GOOD + "base: {data.random_crop: true}\n", r"data.random_crop .*'squash'"),
    # axes
    ("axes_list", _HEAD + "axes: [1]\n", r"axes must be a mapping of settings"),
    ("axis_number", _axis("3"), r"exactly one of float, int, choice, fraction_of, got 3"),
    ("axis_no_kind", _axis("{log: true}"), r"axis optim.lr must have exactly one of"),
    ("axis_two_kinds", _axis("{float: [1, 2], int: [1, 2]}"), r"must have exactly one of"),
    ("axis_misspelt", _axis("{float: [1e-3, 1], logg: true}"), r"no option 'logg' .*'log'"),
    ("axis_unknown", _axis("{choice: [1]}", "tcpa.num_cls"), r"no setting 'tcpa.num_cls' .*line 4"),
    (
        "axis_and_base",
        _GOOD + "base: {optim.lr: 0.1}\n",
        r"optim.lr is an axis .* and fixed in base",
    ),
    (
        "axis_twice",
        _HEAD + "axes:\n  optim: {lr: {choice: [1.0]}}\n  optim.lr: {choice: [2.0]}\n",
        r"optim.lr is given twice",
    ),
    ("axis_seed", _axis("{int: [0, 9]}", "seed"), r"seed is a replicate"),
    ("range_one", _axis("{float: [1]}"), r"needs a range of two numbers, got \[1\]"),
    ("range_text", _axis("{float: [a, b]}"), r"needs a range of two numbers"),
    ("range_inf", _axis("{float: [1.0, 1e999]}"), r"needs a range of two numbers"),
    ("range_reversed", _axis("{float: [1, 0.1]}"), r"low must be <= high, got \[1, 0.1\]"),
    ("range_end", _axis("{float: [0, 0.1]}"), r"optim.lr must be greater than 0, got 0.0"),
    (
        "log_zero",
        _axis("{float: [0, 1], log: true}", "optim.weight_decay"),
        r"start above 0, got 0",
    ),
    ("log_text", _axis("{float: [1, 2], log: yes}"), r"log must be true or false, got 'yes'"),
    ("log_and_step", _axis("{float: [1, 2], log: true, step: 1}"), r"log and step exclude"),
    ("step_zero", _axis("{float: [1, 2], step: 0}"), r"step must be a number > 0, got 0"),
    ("step_misses", _axis("{float: [0.1, 1.0], step: 0.4}"), r"do not end at 1.0 .*high 0.9"),
    ("int_decimal", _axis("{int: [1.5, 3]}", "train.epochs"), r"int needs whole numbers"),
    ("int_step", _axis("{int: [1, 9], step: 0.5}", "train.epochs"), r"whole number >= 1, got 0.5"),
    ("int_misses", _axis("{int: [1, 9], step: 3}", "train.epochs"), r"\[1, 7\] or \[1, 10\]"),
    ("int_for_text", _axis("{int: [1, 2]}", "optim.name"), r"optim.name must be .* got 1"),
    ("float_axis_for_int", _axis("{float: [1, 9]}", "train.epochs"), r"train.epochs must be .*int"),
    ("choice_scalar", _axis("{choice: 0.1}"), r"choice must be a list of values, got 0.1"),
    ("choice_empty", _axis("{choice: []}"), r"choice must be a list of values, got \[\]"),
    ("choice_twice", _axis("{choice: [0.1, 0.1]}"), r"choice lists 0.1 twice"),
    ("choice_bad", _axis("{choice: [0.1, -1]}"), r"optim.lr must be greater than 0, got -1"),
    ("choice_names", _axis("{choice: [vpt, tcpa]}", "methods"), r"got 'vpt' .*write \[vpt\]"),
    (
        "never_chosen",
        _axis("{int: [1, 2]}", "tcpa.prompt_length"),
        r"'tcpa', which is never chosen",
    ),
    # conditions
    ("when_text", _axis("{float: [1, 2], when: tcpa}"), r"when must be a mapping"),
    ("when_unknown", _axis("{float: [1, 2], when: {method: vpt}}"), r"no setting 'method'"),
    ("when_method", _axis("{float: [1, 2], when: {methods: vptt}}"), r"got 'vptt' .*'vpt'"),
    ("when_empty", _axis("{float: [1, 2], when: {optim.name: []}}"), r"lists no value"),
    ("when_value", _axis("{float: [1, 2], when: {optim.name: adam}}"), r"'adamw' or 'sgd'"),
    ("when_never", _axis("{float: [1, 2], when: {optim.name: sgd}}"), r"optim.lr is never active"),
    (
        "when_not_a_choice",
        _axis("{float: [1, 2], when: {train.epochs: 3}}\n  train.epochs: {choice: [1, 2]}"),
        r"when train.epochs is 3 never happens, its axis has \[1, 2\]",
    ),
    (
        "when_real",
        _axis("{float: [1, 2], when: {optim.weight_decay: 1}}")
        + "  optim.weight_decay: {float: [0, 1]}\n",
        r"when cannot depend on optim.weight_decay",
    ),
    (
        "circle",
        _HEAD
        + "axes:\n  data.flip: {choice: [true, false], when: {optim.name: sgd}}\n"
        + "  optim.name: {choice: [sgd, adamw], when: {data.flip: true}}\n",
        r"in a circle: \S+ -> \S+ -> \S+",
    ),
    (
        "self_condition",
        _axis("{choice: [true, false], when: {data.flip: true}}", "data.flip"),
        r"in a circle: data.flip -> data.flip",
    ),
    # fractions and constraints
    (
        "k_above_n",
        _TCPA
        + "axes:\n  tcpa.num_image_prompts: {int: [18, 40]}\n  tcpa.top_k_image: {int: [1, 20]}\n",
        r"tcpa.top_k_image must be <= tcpa.num_image_prompts, got 20 > 18 \(space 's', .*\); lower "
        r"the upper bound of axis tcpa.top_k_image to 18, or search the fraction instead",
    ),
    (
        "k_choice_above_n",
        _TCPA
        + "axes:\n  tcpa.num_image_prompts: {int: [8, 9]}\n  tcpa.top_k_image: {choice: [1, 20]}\n",
        r"leave out choices of axis tcpa.top_k_image above 8",
    ),
    (
        "n_below_k",
        _HEAD + "base: {methods: [tcpa], tcpa.top_k_image: 9}\n"
        "axes: {tcpa.num_image_prompts: {int: [4, 40]}}\n",
        r"got 9 > 4 .*raise the lower bound of axis tcpa.num_image_prompts to 9",
    ),
    (
        "fraction_above_one",
        _TCPA + "axes: {tcpa.top_k_cls: {fraction_of: tcpa.num_cls_prompts, range: [0.5, 2]}}\n",
        r"range must be shares in \(0, 1\], got \[0.5, 2\]",
    ),
    (
        "fraction_no_range",
        _TCPA + "axes: {tcpa.top_k_cls: {fraction_of: tcpa.num_cls_prompts}}\n",
        r"needs a range of two numbers, got None",
    ),
    (
        "fraction_of_nothing",
        _TCPA + "axes: {tcpa.top_k_cls: {fraction_of: tcpa.num_cls, range: [0.5, 1]}}\n",
        r"no setting 'tcpa.num_cls' .*closest",
    ),
    (
        "fraction_of_zero",
        _TCPA + "axes:\n  tcpa.num_cls_prompts: {int: [0, 9]}\n"
        "  tcpa.top_k_cls: {fraction_of: tcpa.num_cls_prompts, range: [0.5, 1]}\n",
        r"fraction_of needs an integer setting of at least 1; tcpa.num_cls_prompts can be 0",
    ),
    (
        "fraction_of_text",
        _TCPA + "axes: {tcpa.top_k_cls: {fraction_of: optim.name, range: [0.5, 1]}}\n",
        r"of at least 1; optim.name can be 'adamw'",
    ),
    (
        "fraction_of_itself",
        _TCPA + "axes: {tcpa.top_k_cls: {fraction_of: tcpa.top_k_cls, range: [0.5, 1]}}\n",
        r"in a circle: tcpa.top_k_cls",
    ),
    ("constraints_text", _GOOD + "constraints: optim.lr <= 1\n", r"must be a list of texts"),
    (
        "constraint_code",
        _GOOD + "constraints: ['exit() <= 1']\n",
        r"got 'exit\(\) <= 1' \(.*line 4",
    ),
    ("constraint_sum", _GOOD + "constraints: ['optim.lr + 1 <= 2']\n", r"must read 'PATH <= PATH'"),
    ("constraint_equal", _GOOD + "constraints: ['optim.lr == 2']\n", r"must read 'PATH <= PATH'"),
    ("constraint_number", _GOOD + "constraints: [3]\n", r"must read .* got 3"),
    ("constraint_path", _GOOD + "constraints: ['optim.lrr <= 2']\n", r"no setting 'optim.lrr'"),
    (
        "constraint_fixed",
        _GOOD + "base: {train.epochs: 3}\nconstraints: ['train.epochs <= 5']\n",
        r"names no axis",
    ),
    (
        "constraint_choice",
        _axis("{choice: [1, 2]}", "train.epochs") + "constraints: ['train.epochs <= 5']\n",
        r"train.epochs is a choice or fraction",
    ),
    (
        "constraint_unset",
        _GOOD + "constraints: ['optim.lr <= optim.momentum']\n",
        r"optim.momentum is neither an axis nor a number in base",
    ),
    (
        "constraint_empty",
        _GOOD + "constraints: ['optim.lr <= 1e-4']\n",
        r"optim.lr has no value left",
    ),
    (
        "constraint_circle",
        _GOOD.replace("}}", "}, optim.weight_decay: {float: [0, 1]}}")
        + "constraints: ['optim.lr <= optim.weight_decay', 'optim.weight_decay < optim.lr']\n",
        r"in a circle",
    ),
    # study-wide sections
    ("metric_test", _GOOD + "objective: {metric: test_accuracy}\n", r"test split is read once"),
    ("metric_unknown", _GOOD + "objective: {metric: val_acc}\n", r"closest name: 'val_accuracy'"),
    (
        "goal_wrong",
        _GOOD + "objective: {metric: val_loss, goal: maximize}\n",
        r"objective: 'maximize' would look for the worst",
    ),
    ("objective_text", _GOOD + "objective: val_accuracy\n", r"objective must be a mapping"),
    ("objective_none", _GOOD + "objective: []\n", r"objective lists no metric"),
    (
        "objective_twice",
        _GOOD + "objective: [{metric: val_accuracy}, {metric: val_accuracy}]\n",
        r"lists a metric twice",
    ),
    ("sampler_unknown", _GOOD + "sampler: {name: tpee}\n", r"sampler.name must be .*'tpe'"),
    ("sampler_text", _GOOD + "sampler: tpe\n", r"sampler must be a mapping of name, seed"),
    ("sampler_key", _GOOD + "sampler: {nam: tpe}\n", r"sampler has no key 'nam' .*'name'"),
    ("grid_endless", _GOOD + "sampler: {name: grid}\n", r"'grid' needs .* optim.lr has too many"),
    (
        "cmaes_two",
        _GOOD + "sampler: {name: cmaes}\nobjective:\n  - {metric: val_accuracy}\n"
        "  - {metric: num_trainable, goal: minimize}\n",
        r"'cmaes' has one objective, got 2",
    ),
    (
        "scheduler_unknown",
        _GOOD + "scheduler: {name: asher}\n",
        r"scheduler.name must be .*'asha'.* got 'asher'; closest name: 'asha'",
    ),
    ("grace_long", _GOOD + "scheduler: {grace_epochs: 50}\n", r"<= train.epochs, got 50 > 20"),
    (
        "factor_one",
        _GOOD + "scheduler: {reduction_factor: 1}\n",
        r"reduction_factor must be .*got 1",
    ),
    ("budget_missing", "name: s\n" + _LR, r"budget must limit trials, hours or gpu_hours"),
    ("budget_zero", "name: s\nbudget: {trials: 0}\n" + _LR, r"budget.trials must be .* got 0"),
    ("budget_key", "name: s\nbudget: {trails: 4}\n" + _LR, r"no key 'trails' .*'trials'"),
    ("cluster_key", _GOOD + "cluster: {worker: 8}\n", r"no key 'worker' .*'workers'"),
    ("cluster_workers", _GOOD + "cluster: {workers: 0}\n", r"cluster.workers must be .* got 0"),
    (
        "cluster_gpus",
        _GOOD + "cluster: {gpus_per_worker: 2}\n",
        r"cluster.gpus_per_worker must be .* got 2 .*line 4",
    ),
    ("cluster_priority", _GOOD + "cluster: {priority: 0}\n", r"cluster.priority must be .* got 0"),
    ("cluster_list", _GOOD + "cluster: [8]\n", r"cluster must be a mapping"),
    ("seeds_zero", _GOOD + "seeds: 0\n", r"seeds must be a count .* got 0"),
    ("seeds_empty", _GOOD + "seeds: []\n", r"seeds must be .* got \[\]"),
    ("seeds_negative", _GOOD + "seeds: [-1]\n", r"seeds must be .* got \[-1\]"),
    ("seeds_twice", _GOOD + "seeds: [1, 1]\n", r"seeds lists a seed twice"),
    ("seeds_text", _GOOD + "seeds: many\n", r"seeds must be .* got 'many'"),
    ("seeds_true", _GOOD + "seeds: true\n", r"seeds must be .* got True"),
    # first points
    ("points_mapping", _GOOD + "first_points: {optim.lr: 0.1}\n", r"must be a list of points"),
    ("point_empty", _GOOD + "first_points: [~]\n", r"lists an empty entry"),
    (
        "point_outside",
        _GOOD + "first_points: [{optim.lr: 5}]\n",
        r"optim.lr is 5.0, outside its axis",
    ),
    (
        "point_no_axis",
        _GOOD + "first_points: [{train.epochs: 5}]\n",
        r"train.epochs, which is not an axis",
    ),
    ("point_unknown", _GOOD + "first_points: [{optim.l: 5}]\n", r"no setting 'optim.l'"),
    (
        "point_default",
        _axis("{float: [0.1, 1]}") + "first_points: [{}]\n",
        r"is left open, and its default is 0.001, outside its axis",
    ),
    (
        "point_inactive",
        _axis("{choice: [[vpt], [tcpa]]}", "methods")
        + "  vpt.num_prompts: {choice: [1, 2]}\n"
        + "first_points: [{methods: [tcpa], vpt.num_prompts: 1}]\n",
        r"axis vpt.num_prompts is not active there",
    ),
    # ablations
    ("ablation_text", "name: a\nablation: tcpa\n", r"ablation must be a mapping, got 'tcpa'"),
    ("ablation_key", _ONE + "  factor: {}\n", r"no key 'factor' .*'factors'"),
    ("ablation_axes", _ONE + _LR, r"an ablation has no 'axes'"),
    ("ablation_seeds", _ONE + "seeds: 3\n", r"stand under ablation.seeds"),
    ("design_unknown", "name: a\nablation: {design: onefactor}\n", r"closest name: 'one_factor'"),
    ("design_missing", "name: a\nablation: {rows: {}}\n", r"ablation.design must be one of .*None"),
    ("no_factors", _ONE, r"design one_factor needs 'factors'"),
    (
        "factors_for_rows",
        _COMP + "  rows: {x: {}, y: {optim.lr: 0.1}}\n  factors: {optim.lr: [0.1, 0.2]}\n",
        r"ablation.factors is for design one_factor or .*, not components \(.*line 6\); remove it",
    ),
    (
        "runs_for_rows",
        _COMP + "  rows: {x: {}, y: {optim.lr: 0.1}}\n  runs: 4\n",
        r"ablation.runs is for design fractional_factorial, not components \(.*\); remove it",
    ),
    (
        "rows_empty",
        _COMP + "  rows: {}\n",
        r"design components needs 'rows', a mapping that is not empty, got \{\}",
    ),
    (
        "race_text",
        _COMP + "  rows: {x: {}, y: {optim.lr: 0.1}}\n  race: yes\n",
        r"ablation.race must be true or false, got 'yes' \(.*line 6",
    ),
    (
        "test_other",
        _COMP + "  rows: {x: {}, y: {optim.lr: 0.1}}\n  test: best\n",
        r"ablation.test must be all or winner, got 'best' \(.*line 6",
    ),
    ("rows_for_factors", _ONE + "  rows: {x: {}}\n", r"design one_factor needs 'factors'"),
    ("one_level", _ONE + "  factors: {cvpt.position: [3]}\n", r"at least two levels, got \[3\]"),
    ("level_bad", _ONE + "  factors: {cvpt.position: [3, 9]}\n", r"cvpt.position must be .* got 9"),
    ("level_twice", _ONE + "  factors: {cvpt.position: [3, 3]}\n", r"lists 3 twice"),
    ("factor_unknown", _ONE + "  factors: {cvpt.pos: [3, 4]}\n", r"no setting 'cvpt.pos'"),
    ("factor_seed", _ONE + "  factors: {seed: [3, 4]}\n", r"seed is a replicate"),
    (
        "baseline_no_level",
        _ONE + "  factors: {cvpt.position: [1, 2]}\n",
        r"baseline cvpt.position = 3 is not one of its levels \[1, 2\]",
    ),
    (
        "baseline_no_factor",
        _ONE + "  factors: {cvpt.position: [3, 4]}\n  baseline: {optim.lr: 0.1}\n",
        r"names optim.lr, which is not a factor",
    ),
    ("cumulative_factors", _ONE + "  factors: {}\n  cumulative: true\n", r"needs 'factors'"),
    (
        "cumulative_leave",
        _COMP.replace("components", "leave_one_out")
        + "  rows: {x: {tcpa.prompt_length: 2}}\n  cumulative: true\n",
        r"cumulative is for design components",
    ),
    (
        "cumulative_text",
        _COMP + "  rows: {x: {}}\n  cumulative: 1\n",
        r"must be true or false, got 1",
    ),
    ("one_row", _COMP + "  rows: {x: {}}\n", r"needs at least two rows, got \['x'\]"),
    (
        "row_other_method",
        _COMP + "  rows: {x: {}, y: {vpt.deep: false}}\n",
        r"vpt.\* is set but methods is \['tcpa'\]",
    ),
    ("row_baseline", _COMP + "  rows: {x: {}, y: {}}\n  baseline: z\n", r"name of a row, got 'z'"),
    (
        "leave_nothing",
        _COMP.replace("components", "leave_one_out") + "  rows: {x: {}}\n",
        r"row 'x' changes nothing",
    ),
    (
        "leave_baseline",
        _COMP.replace("components", "leave_one_out")
        + "  rows: {x: {tcpa.prompt_length: 2}}\n  baseline: x\n",
        r"always the base itself",
    ),
    (
        "design_point",
        "name: a\nbase: {methods: [tcpa]}\nablation:\n  design: full_factorial\n"
        "  factors: {tcpa.num_image_prompts: [10, 20], tcpa.top_k_image: [10, 15]}\n",
        r"tcpa.top_k_image must be <= tcpa.num_image_prompts, got 15 > 10",
    ),
    (
        "design_huge",
        _ONE.replace("one_factor", "full_factorial")
        + "  factors:\n"
        + f"    cvpt.num_prompts: {list(range(200))}\n    train.epochs: {list(range(1, 201))}\n",
        r"40000 trials, more than 10000",
    ),
    (
        "datasets_list",
        _ONE + "  factors: {cvpt.position: [3, 4]}\n  datasets: [a, b]\n",
        r"datasets must map at least two names to their settings, got \['a', 'b'\]",
    ),
    (
        "datasets_one",
        _ONE + "  factors: {cvpt.position: [3, 4]}\n  datasets: {a: {data.name: digits}}\n",
        r"datasets must map at least two names",
    ),
    (
        "datasets_varied",
        _ONE + "  factors: {cvpt.position: [3, 4]}\n"
        "  datasets: {a: {cvpt.position: 3}, b: {train.epochs: 2}}\n",
        r"cvpt.position cannot be set by dataset 'a' .*what the ablation compares",
    ),
    (
        "datasets_methods",
        _COMP + "  rows: {x: {}, y: {optim.lr: 0.1}}\n"
        "  datasets: {a: {methods: [vpt]}, b: {train.epochs: 2}}\n",
        r"methods cannot be set by dataset 'a'",
    ),
    (
        "datasets_path",
        _ONE + "  factors: {cvpt.position: [3, 4]}\n"
        "  datasets: {a: {data.rot: x}, b: {data.root: x}}\n",
        r"no setting 'data.rot' .*'data.root'",
    ),
    (
        "datasets_equal",
        _ONE + "  factors: {cvpt.position: [3, 4]}\n"
        "  datasets: {a: {train.epochs: 2}, b: {train.epochs: 2}}\n",
        r"datasets 'a' and 'b' have equal settings",
    ),
    (
        "datasets_race",
        _COMP + "  rows: {x: {}, y: {optim.lr: 0.1}}\n  race: true\n"
        "  datasets: {a: {train.epochs: 3}, b: {train.epochs: 4}}\n",
        r"datasets have no common winner",
    ),
    (
        "datasets_winner",
        _COMP + "  rows: {x: {}, y: {optim.lr: 0.1}}\n  test: winner\n"
        "  datasets: {a: {train.epochs: 3}, b: {train.epochs: 4}}\n",
        r"datasets have no common winner",
    ),
]
