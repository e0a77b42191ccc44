#!/usr/bin/env bash
# Installs the wheels of dist/ into fresh environments without a compiler, and runs them: `make test-wheel`.
#
#   wheels.sh PYTHON   the environment that has the tool to export with; further pip flags in PIP_FLAGS
set -euo pipefail
python=$(realpath -s "$1") root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
read -ra flags <<< "${PIP_FLAGS:-}"
runtime=("$root"/dist/autosparse_runtime-*.whl) tool=("$root"/dist/autosparse-[0-9]*.whl)

"$python" -m venv "$folder/env"
install() { "$folder/env/bin/pip" -q --disable-pip-version-check install "${flags[@]}" -c "$root/constraints.txt" "$@"; }
remove() { "$folder/env/bin/pip" -q uninstall -y "$1"; }
apart() { (cd "$folder" && env -i PATH="$folder/env/bin" HOME="$folder" "$@"); }
loads() { # loads FOLDER: `import autosparse` is the package in FOLDER, and runs the exported model
    apart python -c "
import numpy, autosparse, shutil
assert not shutil.which('c++') and not shutil.which('cc')
assert autosparse.__file__.endswith('/$1/__init__.py'), autosparse.__file__
found = autosparse.load('m.autosparse')(numpy.load('x.npy'))
assert numpy.allclose(found, numpy.load('y.npy'), atol=1e-4)"
}

(cd "$folder" && "$python" -c "
import autosparse, numpy, torch
layers = torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 8, 3)
model, x = torch.nn.Sequential(*layers).eval(), torch.randn(1, 3, 16, 16)
autosparse.export(model, (x,), 'm.autosparse', measure=False, threads=1)
numpy.save('x.npy', x.numpy()); numpy.save('y.npy', model(x).detach().numpy())")

install "${runtime[@]}"
loads autosparse_runtime
apart python -m autosparse search && exit 1
echo "autosparse-runtime alone: runs an artifact with numpy"
install "${tool[@]}"
loads autosparse
apart autosparse search --model resnet20 --dry-run --threads 1
remove autosparse
loads autosparse_runtime
install --no-deps "${tool[@]}"
remove autosparse-runtime
loads autosparse
echo "side by side: the whole tool comes first, and each outlives the other"
