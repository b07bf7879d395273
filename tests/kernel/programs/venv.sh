# A virtual environment, and a local wheel installed into it. No network.
set -eu
python=$1
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$python" make_wheel.py
"$python" -m venv env
env/bin/pip install --no-index ./greeting-1.0-py3-none-any.whl | sed 's/ \/.*//'
env/bin/greet || echo "status $?"
. env/bin/activate
command -v python | sed 's/.*\/\(env\)/\1/'
python -c 'import greeting, sys; print(greeting.__name__, sys.prefix != sys.base_prefix)'
pip list --format=freeze | grep greeting
pip show -f greeting | grep -c greeting
pip uninstall -q -y greeting
python -c 'import greeting' 2>&1 | tail -1
pip install --no-index --no-deps --target=elsewhere -q ./greeting-1.0-py3-none-any.whl
ls elsewhere
python -m compileall -q elsewhere && ls elsewhere/__pycache__ | wc -l
pip download nothing-of-this-name --no-index 2>/dev/null || echo "no index: $?"
