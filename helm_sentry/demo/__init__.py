"""The bundled agent and the scripted model server it talks to."""
