"""Write a wheel with one module and one command, as a build tool would, without any build tool."""

import base64
import hashlib
import zipfile

FILES = {
    "greeting.py": 'def main():\n    print("hello from the wheel")\n    return 6\n',
    "greeting-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
    "greeting-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "greeting-1.0.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeting:main\n",
}


def digest(text):
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


with zipfile.ZipFile("greeting-1.0-py3-none-any.whl", "w") as wheel:
    record = ""
    for name, text in FILES.items():
        wheel.writestr(name, text)
        record += f"{name},sha256={digest(text)},{len(text.encode())}\n"
    wheel.writestr("greeting-1.0.dist-info/RECORD", record + "greeting-1.0.dist-info/RECORD,,\n")
