"""Entry of the web app, here (`python app.py`) and on a Space."""

from app.__main__ import main

if __name__ == "__main__":
    main()
